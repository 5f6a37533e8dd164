"""The passes that rescue a quantized model, on the real runtimes, on a small MobileNet-like file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from support.layer_models import draw_images, write_block_onnx
from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.layers.table import open_layers
from trimtab_compressor.passes.equalize import equalize
from trimtab_compressor.passes.stage import FileStage, Findings
from trimtab_compressor.passes.table import FILE_PASSES
from trimtab_compressor.runtimes.port import Kernels, fit_samples, run_all
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.specs.base import FileSpec
from trimtab_compressor.specs.rescue import Equalize
from trimtab_protocol.manifest import ModelFormat

CALIBRATION = draw_images(48, seed=1)
FRESH = draw_images(64, seed=2)


def outputs_of(path: Path, images: AnyArray = FRESH) -> AnyArray:
    runner = open_model(path, Kernels.EXACT)
    found = run_all(runner, fit_samples(runner.io, images, what="images"))
    return np.asarray(found[runner.io.outputs[0].name])


def apply(spec: FileSpec, source: Path, target: Path) -> Findings:
    stage = FileStage(spec=spec, source=source, target=target, calibration=CALIBRATION)
    return FILE_PASSES[(spec.pass_name, ModelFormat(source.suffix[1:]))](stage)


def channel_ranges(path: Path, name: str) -> AnyArray:
    weight = next(layer.weight for layer in open_layers(path).layers if layer.name == name)
    return np.abs(weight).reshape(len(weight), -1).max(axis=1)


def input_ranges(path: Path, name: str) -> AnyArray:
    weight = next(layer.weight for layer in open_layers(path).layers if layer.name == name)
    return np.asarray(np.abs(weight).reshape(*weight.shape[:2], -1).max(axis=(0, 2)))


@pytest.mark.parametrize("head", ["mean", "flatten"])
def test_equalized_layers_compute_the_same_with_equal_ranges(head: str, tmp_path: Path) -> None:
    source = write_block_onnx(tmp_path / "net.onnx", head=head)
    found = apply(Equalize(clip="leave"), source, tmp_path / "equal.onnx")
    assert found["pairs"] == 4
    assert float(str(found["spread_after"])) < float(str(found["spread_before"]))
    before, after = outputs_of(source), outputs_of(tmp_path / "equal.onnx")
    assert np.abs(after - before).max() < 1e-5 * np.ptp(before)
    assert channel_ranges(tmp_path / "equal.onnx", "hidden") == pytest.approx(
        input_ranges(tmp_path / "equal.onnx", "answer"), rel=1e-2
    )
    if head == "flatten":  # four features of each channel
        reads = input_ranges(tmp_path / "equal.onnx", "hidden").reshape(12, 4).max(axis=1)
        assert channel_ranges(tmp_path / "equal.onnx", "wide") == pytest.approx(reads, rel=1e-2)


def test_a_depthwise_layer_is_equal_with_both_neighbours(tmp_path: Path) -> None:
    source = write_block_onnx(tmp_path / "net.onnx")
    apply(Equalize(), source, tmp_path / "equal.onnx")
    depth = channel_ranges(tmp_path / "equal.onnx", "depth")
    assert channel_ranges(tmp_path / "equal.onnx", "expand") == pytest.approx(depth, rel=1e-2)
    assert input_ranges(tmp_path / "equal.onnx", "project") == pytest.approx(depth, rel=1e-2)
    assert channel_ranges(source, "expand") != pytest.approx(channel_ranges(source, "depth"), rel=1)


def test_behind_a_clip_only_channels_that_never_reach_it_are_scaled(tmp_path: Path) -> None:
    source = write_block_onnx(tmp_path / "net.onnx", limit=6.0)
    batches = open_layers(source).capture(["expand.act.out"], CALIBRATION, {})
    values = np.concatenate([batch["expand.act.out"] for batch in batches])
    is_clipped = values.max(axis=(0, 2, 3)) == 6
    assert 0 < is_clipped.sum() < 16
    apply(Equalize(margin=1.5), source, tmp_path / "equal.onnx")
    ratio = channel_ranges(tmp_path / "equal.onnx", "expand") / channel_ranges(source, "expand")
    is_moved = np.abs(ratio - 1) > 1e-3
    assert not (is_moved & is_clipped).any()
    assert (is_moved & ~is_clipped).any()
    before, after = outputs_of(source), outputs_of(tmp_path / "equal.onnx")
    assert np.abs(after - before).max() < 1e-5 * np.ptp(before)


def test_layers_with_a_clip_between_them_can_be_left_as_they_are(tmp_path: Path) -> None:
    source = write_block_onnx(tmp_path / "net.onnx", limit=6.0)
    assert apply(Equalize(clip="leave"), source, tmp_path / "equal.onnx")["pairs"] == 1
    np.testing.assert_array_equal(
        channel_ranges(tmp_path / "equal.onnx", "expand"), channel_ranges(source, "expand")
    )
    assert Equalize(clip="leave").is_exact
    assert not Equalize(clip="measured").is_exact


def test_nothing_is_scaled_whose_activation_is_an_output_of_the_model_too(tmp_path: Path) -> None:
    source = write_block_onnx(tmp_path / "net.onnx")
    model = onnx.load(source)
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("expand.act.out", onnx.TensorProto.FLOAT, None)
    )
    onnx.save(model, source)
    pairs = {(pair.first, pair.second) for pair in open_layers(source).pairs}
    assert ("expand", "depth") not in pairs
    assert ("depth", "project") in pairs
    assert not any("stem" in pair or pair[0] == "project" for pair in pairs), (
        "an addition reads them"
    )


def test_a_constant_that_two_layers_share_stays_as_it_is_for_the_other(tmp_path: Path) -> None:
    source = write_block_onnx(tmp_path / "net.onnx")
    model = onnx.load(source)
    project = next(node for node in model.graph.node if node.name == "project")
    project.input[2] = "stem.b"
    onnx.save(model, source)
    apply(Equalize(), source, tmp_path / "equal.onnx")
    before, after = outputs_of(source), outputs_of(tmp_path / "equal.onnx")
    assert np.abs(after - before).max() < 1e-5 * np.ptp(before)


def test_a_file_that_no_longer_computes_the_same_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_block_onnx(tmp_path / "net.onnx", limit=6.0)
    module = "trimtab_compressor.passes.equalize.measure_headroom"
    monkeypatch.setattr(module, lambda *_: {})  # as if the clips were not there
    stage = FileStage(
        spec=Equalize(), source=source, target=tmp_path / "x.onnx", calibration=CALIBRATION
    )
    with pytest.raises(Exception, match="does not compute what net"):
        equalize(stage)
