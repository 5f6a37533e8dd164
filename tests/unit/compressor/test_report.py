"""The model card: well-formed, self-contained, and with the figures of results.json."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from support.counted_models import draw_images, quantized, write_image_net
from trimtab_compressor.arrays import digest_file
from trimtab_compressor.cli import main
from trimtab_compressor.inspection.inspect_model import read_graph
from trimtab_compressor.report.capture import activation_of
from trimtab_compressor.report.card import ModelCard
from trimtab_compressor.report.collect import collect_card
from trimtab_compressor.report.histogram import pair_histograms
from trimtab_compressor.report.page import render_card
from trimtab_compressor.report.pareto import mark_front
from trimtab_compressor.report.svg import (
    Dot,
    Scale,
    draw_dots,
    log_ticks,
    round_ticks,
    short_number,
)
from trimtab_compressor.report.write import read_results, write_card
from trimtab_compressor.run_report import CandidateResult, FailedCandidate, RunReport
from trimtab_compressor.specs.quantization import QuantizeDynamic, QuantizeStatic
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.manifest import ModelFormat, PassRecord, Quality


def result(path: Path, recipe: str, exact: float, *passes: PassRecord) -> CandidateResult:
    return CandidateResult(
        recipe=recipe,
        format=ModelFormat.ONNX,
        file=path.name,
        size_bytes=path.stat().st_size,
        compressed_bytes=1234,
        quality=Quality(
            samples=500, exact=exact, on_host=exact - 0.0123, base=0.9, host_cpu="A CPU"
        ),
        passes=(PassRecord(name="train", parameters={"epochs": 3}, seconds=1.5), *passes),
        seconds=2.0,
        sha256=digest_file(path),
        base_sha256=None if recipe == "fp32" else "1" * 64,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    base = write_image_net(folder / "fp32.onnx")
    static = quantized(base, folder / "static.onnx", QuantizeStatic(is_range_reduced=True))
    dynamic = quantized(base, folder / "dynamic.onnx", QuantizeDynamic())
    report = RunReport(
        task="digits & <friends>",
        candidates=(
            result(base, "fp32", 0.9),
            result(static, "static", 0.875, PassRecord(name="quantize_static", findings={"n": 3})),
            result(dynamic, "dynamic", 0.9, PassRecord(name="quantize_dynamic")),
        ),
        failures=(
            FailedCandidate(
                recipe="broken",
                format=ModelFormat.TFLITE,
                code=ErrorCode.MODEL_GOLDEN,
                reason="computes something else",
            ),
        ),
        seed=42,
        data_sha256={"train": "2" * 64},
        tools={"onnxruntime": "1.2.3"},
    )
    (folder / "results.json").write_text(report.model_dump_json())
    return folder


@pytest.fixture(scope="module")
def card(folder: Path) -> ModelCard:
    return write_card(folder / "results.json", {"x": draw_images()})


@pytest.fixture(scope="module")
def page(folder: Path, card: ModelCard) -> str:
    del card
    return (folder / "report.html").read_text()


def rows_of(page: str, caption: str) -> list[list[str]]:
    body = ElementTree.fromstring(page.split("\n", 1)[1])
    for table in body.iter("table"):
        if table.findtext("caption") == caption:
            return [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
    raise AssertionError(f"no table {caption}")


def test_the_page_is_well_formed_and_needs_nothing_from_outside(page: str) -> None:
    tree = ElementTree.fromstring(page.split("\n", 1)[1])
    outside = {"src", "href", "srcset", "action", "data", "poster"}
    for element in tree.iter():
        assert element.tag not in {"script", "link", "img", "iframe", "object"}
        assert not outside & {name.split("}")[-1] for name in element.attrib}
    assert not re.search(r"https?:|//\w|url\(|@import", page)
    assert "digits &amp; &lt;friends&gt;" in page


def test_its_figures_are_those_of_the_results(page: str, folder: Path) -> None:
    report = read_results(folder / "results.json")
    rows = rows_of(page, "Candidates")[1:]
    assert len(rows) == 3
    for row, candidate in zip(rows, report.candidates, strict=True):
        quality = candidate.quality
        assert row[1:4] == [candidate.recipe, "onnx", "500"]
        assert row[4:7] == [
            f"{quality.exact:.4f}",
            f"{quality.on_host:.4f}",
            f"{quality.drop():.4f}",
        ]
        assert row[7:9] == [f"{candidate.size_bytes:,}", "1,234"]
        assert row[10] == "5,472"
        assert candidate.sha256 is not None
        assert candidate.sha256 in page
    assert [row[11] for row in rows] == ["0.0%", "100.0%", "5.3%"]
    assert "1" * 64 in page
    assert "computes something else" in page
    assert ["seed", "42"] in rows_of(page, "What it depends on")
    assert ["version of onnxruntime", "1.2.3"] in rows_of(page, "What it depends on")
    assert rows_of(page, "Passes, in order")[1] == ["train", "epochs=3", "-", "1.5"]


def test_everything_that_is_drawn_can_be_heard(page: str, card: ModelCard) -> None:
    tree = ElementTree.fromstring(page.split("\n", 1)[1])
    plots = list(tree.iter("svg"))
    assert len(plots) == 2 + len(card.histograms) + 4
    for plot in plots:
        assert plot.get("role") == "img"
        assert plot.findtext("title")
        assert plot.findtext("desc")
    assert tree.get("lang") == "en"
    assert all(table.findtext("caption") for table in tree.iter("table"))


def test_layers_are_compared_by_their_weights_and_by_what_they_give(card: ModelCard) -> None:
    static, dynamic = card.candidates[1], card.candidates[2]
    assert [row.layer for row in static.errors] == ["c", "d", "y"]
    for error in static.errors:
        assert (error.weights_db.value or 0) > 30  # seven bits: about 6 dB each, less the crest
        assert (error.activations_db.value or 0) > 20
    assert dynamic.errors[0].weights_db.absent == "the same weights"
    assert (dynamic.errors[2].activations_db.value or 0) > 20
    assert {row.what for row in card.histograms} == {"weights", "activations"}
    assert card.activation_samples == 16


def test_what_a_layer_gives_is_taken_after_its_activation_and_its_grid(folder: Path) -> None:
    base = read_graph(folder / "fp32.onnx")
    assert [activation_of(base, row) for row in base.layers] == ["r", "d", "y"]
    static = read_graph(folder / "static.onnx")
    names = [activation_of(static, row) for row in static.layers]
    assert all(name is not None and ("Dequantize" in name or name == "y") for name in names)
    dynamic = read_graph(folder / "dynamic.onnx")
    assert activation_of(dynamic, dynamic.layers[-1]) == "y"


def test_a_candidate_that_was_trained_anew_has_no_layer_errors(folder: Path) -> None:
    report = read_results(folder / "results.json")
    path = folder / "static.onnx"
    pruned = result(path, "static", 0.8, PassRecord(name="prune_channels"))
    changed = report.model_copy(update={"candidates": (report.candidates[0], pruned)})
    found = collect_card(changed, folder, None).candidates[1]
    assert found.errors == ()
    assert "trained anew" in found.note


def test_a_file_that_is_missing_or_was_changed_is_said_to_be_so(
    folder: Path, tmp_path: Path
) -> None:
    report = read_results(folder / "results.json")
    gone = collect_card(report, tmp_path, None)
    assert all("not beside results.json" in row.note for row in gone.candidates)
    assert all(row.macs.value is None for row in gone.candidates)
    render_card(gone)
    for row in report.candidates:
        (tmp_path / row.file).write_bytes((folder / "fp32.onnx").read_bytes())
    changed = collect_card(report, tmp_path, None)
    assert "its digest differs" in changed.candidates[1].note


def test_the_front_is_what_nothing_else_beats() -> None:
    points = [(10.0, 0.9), (5.0, 0.9), (5.0, 0.8), (2.0, 0.7), (20.0, 0.95), None, (5.0, 0.9)]
    assert mark_front(points) == [False, True, False, True, True, False, True]


def test_histograms_share_their_bins_and_add_up_to_one() -> None:
    one, other = pair_histograms(np.array([0.0, 1.0, 1.0]), np.array([[-1.0], [1.0]]))
    assert (one.low, one.high) == (other.low, other.high) == (-1.0, 1.0)
    assert sum(one.shares) == pytest.approx(1.0)
    assert one.shares[-1] == pytest.approx(2 / 3)
    assert other.shares[0] == 0.5
    same, _ = pair_histograms(np.zeros(3), np.zeros(3))
    assert same.low < 0 < same.high


def test_scales_and_ticks() -> None:
    assert Scale(1.0, 100.0, 0.0, 10.0, is_log=True).at(10.0) == pytest.approx(5.0)
    assert Scale(0.0, 4.0, 10.0, 0.0).at(1.0) == pytest.approx(7.5)
    assert log_ticks(900.0, 30_000.0) == [1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0]
    assert round_ticks(0.0, 1.0) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert [short_number(row) for row in (500.0, 5000.0, 2.5e6)] == ["500", "5k", "2.5M"]


def test_points_over_each_other_share_a_label_and_one_alone_can_be_drawn() -> None:
    dots = [Dot(10.0, 0.9, "1"), Dot(10.0, 0.9, "2"), Dot(500.0, 0.5, "3", 1, is_on_front=True)]
    drawn = draw_dots(dots, title="t", x_title="x", y_title="y", groups=["onnx", "tflite"])
    assert ">1, 2</text>" in drawn
    ElementTree.fromstring(drawn)
    ElementTree.fromstring(
        draw_dots(dots[:1], title="t", x_title="x", y_title="y", groups=["onnx"])
    )


def test_the_command_writes_the_page_where_it_is_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.npy"
    np.save(data, draw_images())
    target = tmp_path / "card.html"
    results = str(folder / "results.json")
    assert main(["report", results, "--data", str(data), "--out", str(target)]) == 0
    assert str(target) in capsys.readouterr().out
    assert "activations of c<" in target.read_text()
    assert main(["report", str(tmp_path / "none.json")]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "bad.json").write_text('{"task": 3}')
    with pytest.raises(ConfigError, match=r"no results\.json"):
        read_results(tmp_path / "bad.json")


def test_sensitivity_is_measured_when_it_is_asked_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, target = tmp_path / "data.npz", tmp_path / "card.html"
    np.savez(data, x=draw_images(), labels=np.arange(32) % 4)
    results = str(folder / "results.json")
    asked = ["report", results, "--out", str(target), "--sensitivity"]
    assert main([*asked, "--data", str(data), "--json"]) == 0
    out = capsys.readouterr().out
    found = ModelCard.model_validate_json(out[out.index("{") :])
    table = found.sensitivities[0]
    assert (table.file, table.samples) == ("fp32.onnx", 32)
    assert sorted(row.layer for row in table.layers) == ["c", "d", "y"]
    assert all(20 < row.sqnr_db < 80 for row in table.layers)
    assert "points lost" in target.read_text()
    ElementTree.fromstring(target.read_text().split("\n", 1)[1])
    assert main(asked) == 2
    assert "give --data or --task" in capsys.readouterr().err
