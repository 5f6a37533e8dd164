"""Tables of compressed models: which is best, what a cell says, and what of a document is replaced."""

from __future__ import annotations

import pytest

from support.model_tables import ABSENT, ModelRow, find_best, render_table, replace_block
from trimtab_compressor.host_latency import HostLatency


def a_latency(ratio: float) -> HostLatency:
    return HostLatency(
        p50_ms=ratio, base_p50_ms=1.0, ratio=ratio, low=ratio - 0.01, high=ratio + 0.01
    )


BASE = ModelRow(label="fp32", format="onnx", exact=0.98, size_bytes=1000, is_base=True)


def test_what_loses_too_much_is_not_called_best() -> None:
    small = ModelRow(label="tiny", format="onnx", exact=0.97, size_bytes=10, latency=a_latency(0.1))
    good = ModelRow(label="good", format="onnx", exact=0.976, size_bytes=50, latency=a_latency(0.5))
    other = ModelRow(label="other", format="tflite", exact=0.98, size_bytes=1)
    found = find_best([BASE, small, good, other], "onnx")
    assert {name: row.label for name, row in found.items()} == {
        "smallest": "good",
        "fastest": "good",
    }


def test_without_a_measured_latency_nothing_is_called_fastest() -> None:
    good = ModelRow(label="good", format="onnx", exact=0.98, size_bytes=50)
    assert list(find_best([BASE, good], "onnx")) == ["smallest"]
    assert find_best([good], "onnx") == {}


def test_a_row_that_failed_keeps_its_place_with_the_reason() -> None:
    failed = ModelRow(label="odd", format="onnx", note="does not install")
    lines = render_table([failed], ["tool", "bytes", "note"]).splitlines()
    assert lines[1] == "|---|---:|---|"
    assert lines[2] == f"| odd | {ABSENT} | does not install |"


def test_cells_carry_their_units_and_intervals() -> None:
    row = ModelRow(
        label="x", format="onnx", exact=0.98765, size_bytes=1234567, latency=a_latency(0.5)
    )
    lines = render_table([BASE, row], ["accuracy, exact", "bytes", "latency to fp32"]).splitlines()
    assert lines[2].endswith("| 1 |")
    assert lines[3] == "| 98.77 % | 1,234,567 | 0.50 (0.49–0.51) |"


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    document = "before\n<!-- t -->\nold\n<!-- /t -->\nafter\n"
    once = replace_block(document, "t", "new")
    assert once == "before\n<!-- t -->\n\nnew\n\n<!-- /t -->\nafter\n"
    assert replace_block(once, "t", "new") == once


@pytest.mark.parametrize(
    "document", ["", "<!-- t -->", "<!-- /t --><!-- t -->", "<!-- t --><!-- t --><!-- /t -->"]
)
def test_a_document_without_its_markers_is_left_alone(document: str) -> None:
    with pytest.raises(ValueError, match="t -->"):
        replace_block(document, "t", "new")
