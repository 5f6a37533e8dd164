"""Recipes ranked by priors: for a file or a task, on a device class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.counted_models import write_image_net
from trimtab_compressor.cli import main
from trimtab_compressor.device_kinds import KINDS, DeviceKind, kind_of_class, kind_of_cpu
from trimtab_compressor.inspection.description import Inspection
from trimtab_compressor.inspection.inspect_model import describe_file
from trimtab_compressor.priors import PRIORS, SIZE_RATIOS, Technique, find_prior
from trimtab_compressor.recipes import RECIPES
from trimtab_compressor.recommend import Recommendation, Recommendations, Subject, recommend
from trimtab_protocol.manifest import ModelFormat
from trimtab_protocol.reading import Reading


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    return describe_file(write_image_net(tmp_path_factory.mktemp("models") / "net.onnx"))


def rank(
    found: Inspection, kind: str, *, is_task: bool = False
) -> dict[tuple[str, str], Recommendation]:
    ranked = recommend(
        Subject(found, is_task), RECIPES.values(), DeviceKind(KINDS[kind], "given"), kind
    )
    return {(row.recipe, row.format.value): row for row in ranked.recommendations}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("raspberry-pi-4-model-b-rev-1-4-t4", "pi4"),
        ("raspberry-pi-5-model-b-rev-1-0-t2", "pi5"),
        ("raspberry-pi-3-model-b-plus-rev-1-3-t4", "pi3"),
        ("raspberry-pi-zero-2-w-rev-1-0-t4", "pi3"),
        ("raspberry-pi-compute-module-4-rev-1-0-t4", "pi4"),
        ("nvidia-jetson-orin-nano-developer-kit-t6", "orin-cpu"),
        ("nvidia-jetson-nano-developer-kit-t4", "pi4"),
        ("kitchen-pi4", "pi4"),
        ("x86-vnni", "x86-vnni"),
        ("one-thread", "generic"),
        ("dell-inc-optiplex-7090-t4", "generic"),
    ],
)
def test_a_class_name_says_which_kind_it_is_or_that_it_says_nothing(name: str, kind: str) -> None:
    device = kind_of_class(name)
    assert device.kind.name == kind
    assert ("says nothing" in device.reason) == (kind == "generic")


def test_this_machine_is_known_by_its_flags() -> None:
    assert kind_of_cpu("flags\t\t: fpu avx avx2 fma\n").kind.name == "x86-avx2"
    assert kind_of_cpu("flags\t\t: avx2 avx512_vnni\n").kind.name == "x86-vnni"
    assert kind_of_cpu("Features\t: fp asimd asimddp\n").kind.name == "pi5"
    assert kind_of_cpu("Features\t: fp asimd\n").kind.name == "pi4"
    assert kind_of_cpu("").kind.name == "generic"


def test_every_kind_has_a_prior_with_a_source_for_every_technique() -> None:
    for kind in KINDS.values():
        for model_format in ModelFormat:
            for technique in Technique:
                if (model_format, technique) == (ModelFormat.TFLITE, Technique.STATIC_S8S8):
                    continue  # TFLite has one scheme
                prior = find_prior(kind, model_format, technique)
                assert prior.source
                assert (prior.low is None) == (prior.high is None)
                assert prior.low is None or prior.high is None or prior.low <= prior.high
    assert set(SIZE_RATIOS) == set(Technique)


def test_symmetric_activations_come_first_on_a_pi_and_last_on_a_pc(found: Inspection) -> None:
    pi, pc = rank(found, "pi4"), rank(found, "x86-avx2")
    sym, asym = ("static_w8a8_sym", "onnx"), ("static_w8a8_asym", "onnx")
    assert (pi[sym].rank or 99) < (pi[asym].rank or 99)
    assert (pc[asym].rank or 99) < (pc[("fp32", "onnx")].rank or 99) < (pc[sym].rank or 99)


def test_an_unknown_class_is_ranked_between_the_known_ones(found: Inspection) -> None:
    unknown = rank(found, "generic")[("static_w8a8_sym", "onnx")]
    key = (ModelFormat.ONNX, Technique.STATIC_S8S8)
    lows = [row.low for kind in PRIORS if (row := PRIORS[kind].get(key)) and kind != "jetson-gpu"]
    assert unknown.gain_low == min(low for low in lows if low is not None)


def test_what_needs_the_network_cannot_be_done_with_a_file(found: Inspection) -> None:
    of_file, of_task = rank(found, "pi5"), rank(found, "pi5", is_task=True)
    pruned, other = ("prune50_static_w8a8", "onnx"), ("static_w8a8_asym", "tflite")
    assert not of_file[pruned].can_be_done
    assert "task file" in of_file[pruned].reason
    assert "the file is onnx" in of_file[other].reason
    assert of_task[pruned].can_be_done
    assert (of_task[pruned].rank or 99) < (of_task[("static_w8a8_asym", "onnx")].rank or 99)
    assert of_task[other].can_be_done
    assert "calibration" in of_file[("static_w8a8_asym", "onnx")].reason


def test_dynamic_quantization_gains_only_on_the_dense_share(found: Inspection) -> None:
    row = rank(found, "pi5")[("dynamic_w8", "onnx")]
    share = 288 / 5472
    assert row.gain_high == round(1 / ((1 - share) + share / 1.8), 2)
    assert row.size_ratio == round(1 - 292 / 444 * 0.75, 3)
    assert "reaches 5% of the work" in row.reason


def test_a_small_net_is_ranked_by_the_low_end(found: Inspection) -> None:
    large = found.model_copy(
        update={
            "totals": found.totals.model_copy(update={"macs": Reading(value=5e8)}),
            "layers": tuple(
                row.model_copy(update={"macs": (row.macs or 0) * 100_000}) for row in found.layers
            ),
        }
    )
    sym = ("static_w8a8_sym", "onnx")
    fp32 = ("fp32", "onnx")
    small_row, large_row = rank(found, "generic"), rank(large, "generic")
    assert (small_row[sym].rank or 99) > (small_row[fp32].rank or 99)
    assert (large_row[sym].rank or 99) < (large_row[fp32].rank or 99)


def test_nothing_is_ever_called_measured(
    found: Inspection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_image_net(tmp_path / "net.onnx"))
    assert main(["recipes", "--for", path, "--class", "one-thread", "--json"]) == 0
    ranked = Recommendations.model_validate(json.loads(capsys.readouterr().out))
    assert {row.basis for row in ranked.recommendations} == {"prior"}
    assert "says nothing" in ranked.kind_reason
    assert main(["recipes", "--for", path, "--class", "host"]) == 0
    text = capsys.readouterr().out
    assert "speed (prior)" in text
    assert "source: " in text
    assert main(["recipes", "--json"]) == 2
    assert main(["recipes", "--for", path, "--class", "No Name"]) == 2
