"""The passes that rescue a quantized model, on the real runtimes, on a small MobileNet-like file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter

from support.layer_models import draw_images, write_block_onnx
from support.layer_models_tflite import write_block_tflite
from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.layers.port import LayerKind
from trimtab_compressor.layers.table import open_layers
from trimtab_compressor.layers.tflite_graph import TfliteGraph
from trimtab_compressor.passes.stage import FileStage, Findings
from trimtab_compressor.passes.table import FILE_PASSES
from trimtab_compressor.runtimes.port import Kernels, fit_samples, run_all
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.specs.base import FileSpec
from trimtab_compressor.specs.quantization import QuantizeStatic
from trimtab_compressor.specs.rescue import CorrectBias, Equalize, RoundWeights
from trimtab_protocol.errors import ConfigError, ModelError
from trimtab_protocol.manifest import ModelFormat

CALIBRATION = draw_images(48, seed=1)
FRESH = draw_images(64, seed=2)


WRITERS = {ModelFormat.ONNX: write_block_onnx, ModelFormat.TFLITE: write_block_tflite}
BOTH = pytest.mark.parametrize("model_format", list(WRITERS))


def lay_out(images: AnyArray, path: Path) -> AnyArray:
    """As the file wants them: TFLite has channels last."""
    if path.suffix == ".onnx":
        return images
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))


def outputs_of(path: Path, images: AnyArray = FRESH) -> AnyArray:
    runner = open_model(path, Kernels.EXACT)
    found = run_all(runner, fit_samples(runner.io, lay_out(images, path), what="images"))
    return np.asarray(found[runner.io.outputs[0].name])


def apply(spec: FileSpec, source: Path, target: Path) -> Findings:
    calibration = {"image": lay_out(CALIBRATION, source)}
    stage = FileStage(spec=spec, source=source, target=target, calibration=calibration)
    return FILE_PASSES[(spec.pass_name, ModelFormat(source.suffix[1:]))](stage)


def channel_ranges(path: Path, name: str) -> AnyArray:
    weight = next(layer.weight for layer in open_layers(path).layers if layer.name == name)
    return np.asarray(np.abs(weight).reshape(len(weight), -1).max(axis=1))


def input_ranges(path: Path, name: str) -> AnyArray:
    weight = next(layer.weight for layer in open_layers(path).layers if layer.name == name)
    return np.asarray(np.abs(weight).reshape(*weight.shape[:2], -1).max(axis=(0, 2)))


@BOTH
@pytest.mark.parametrize("head", ["mean", "flatten"])
def test_equalized_layers_compute_the_same_with_equal_ranges(
    head: str, model_format: ModelFormat, tmp_path: Path
) -> None:
    source, target = (tmp_path / f"{name}.{model_format.value}" for name in ("net", "equal"))
    WRITERS[model_format](source, head=head)
    found = apply(Equalize(clip="leave"), source, target)
    assert found["pairs"] == 4
    assert float(str(found["spread_after"])) < float(str(found["spread_before"]))
    before, after = outputs_of(source), outputs_of(target)
    assert np.abs(after - before).max() < 1e-5 * np.ptp(before)
    assert channel_ranges(target, "hidden") == pytest.approx(
        input_ranges(target, "answer"), rel=1e-2
    )
    if head == "flatten":  # four features of each channel
        reads = input_ranges(target, "hidden")
        reads = reads.reshape((12, 4) if model_format is ModelFormat.ONNX else (4, 12))
        reads = reads.max(axis=1 if model_format is ModelFormat.ONNX else 0)
        assert channel_ranges(target, "wide") == pytest.approx(reads, rel=1e-2)


def test_a_depthwise_layer_is_equal_with_both_neighbours(tmp_path: Path) -> None:
    source = write_block_onnx(tmp_path / "net.onnx")
    apply(Equalize(), source, tmp_path / "equal.onnx")
    depth = channel_ranges(tmp_path / "equal.onnx", "depth")
    assert channel_ranges(tmp_path / "equal.onnx", "expand") == pytest.approx(depth, rel=1e-2)
    assert input_ranges(tmp_path / "equal.onnx", "project") == pytest.approx(depth, rel=1e-2)
    assert channel_ranges(source, "expand") != pytest.approx(channel_ranges(source, "depth"), rel=1)


@BOTH
def test_behind_a_clip_only_channels_that_never_reach_it_are_scaled(
    model_format: ModelFormat, tmp_path: Path
) -> None:
    source, target = (tmp_path / f"{name}.{model_format.value}" for name in ("net", "equal"))
    graph = open_layers(WRITERS[model_format](source, limit=6.0))
    clip = next(pair.clip for pair in graph.pairs if pair.first == "expand")
    assert clip is not None
    images = {"image": lay_out(CALIBRATION, source)}
    values = np.concatenate([row[clip.tensor] for row in graph.capture([clip.tensor], images, {})])
    is_clipped = np.moveaxis(values, clip.channel_axis, 1).max(axis=(0, 2, 3)) == 6
    assert 0 < is_clipped.sum() < 16
    apply(Equalize(margin=1.5), source, target)
    ratio = channel_ranges(target, "expand") / channel_ranges(source, "expand")
    is_moved = np.abs(ratio - 1) > 1e-3
    assert not (is_moved & is_clipped).any()
    assert (is_moved & ~is_clipped).any()
    before, after = outputs_of(source), outputs_of(target)
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
    depth = next(node for node in model.graph.node if node.name == "depth")
    depth.input[2] = "expand.b"
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
    with pytest.raises(ModelError, match="does not compute what net"):
        apply(Equalize(), source, tmp_path / "x.onnx")


GRIDS = [
    pytest.param({"is_per_channel": per_channel, "is_range_reduced": reduced}, id=f"{name}{kind}")
    for per_channel, name in ((True, "per channel"), (False, "per tensor"))
    for reduced, kind in ((False, ""), (True, ", reduced"))
]


def integers_of(path: Path) -> dict[str, tuple[AnyArray, AnyArray]]:
    """By the float constant's name, the int8 weights of a QDQ file and what they stand for."""
    model = onnx.load(path)
    values = {row.name: onnx.numpy_helper.to_array(row) for row in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0].endswith("_quantized"):
            integers, scale = values[node.input[0]], values[node.input[1]]
            if integers.dtype != np.int8 or integers.ndim < 2:
                continue
            axis = next((row.i for row in node.attribute if row.name == "axis"), 1)
            shape = [1] * integers.ndim
            if scale.size > 1:
                shape[axis % integers.ndim] = scale.size
            meaning = integers * scale.reshape(shape if scale.size > 1 else [1] * integers.ndim)
            found[node.input[0].removesuffix("_quantized")] = (integers, meaning)
    return found


def float_constants(path: Path) -> dict[str, AnyArray]:
    return {row.name: onnx.numpy_helper.to_array(row) for row in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("grid", GRIDS)
def test_the_quantizer_keeps_every_weight_that_was_rounded_for_it(
    grid: dict[str, bool], tmp_path: Path
) -> None:
    source = write_block_onnx(tmp_path / "net.onnx")
    spec = RoundWeights(**grid, iterations=20, rows=200, samples=16)  # type: ignore[arg-type]
    assert apply(spec, source, tmp_path / "rounded.onnx")["layers"] == 7
    static = QuantizeStatic(**grid)  # type: ignore[arg-type]
    apply(static, tmp_path / "rounded.onnx", tmp_path / "q.onnx")
    rounded, before = float_constants(tmp_path / "rounded.onnx"), float_constants(source)
    kept = integers_of(tmp_path / "q.onnx")
    assert len(kept) == 7
    moved = 0
    for name, (integers, meaning) in kept.items():
        np.testing.assert_allclose(meaning, rounded[name], rtol=1e-5, atol=1e-7)
        assert np.abs(integers.astype(int)).max() == (64 if grid["is_range_reduced"] else 127)
        nearest = np.rint(
            before[name] / np.where(integers, meaning / np.where(integers, integers, 1), np.inf)
        )
        moved += int((nearest != integers)[integers != 0].sum())
    assert moved > 50, "some were not rounded to the nearest"


def mean_error(path: Path, expected: AnyArray) -> float:
    found = outputs_of(path, CALIBRATION)
    return float(np.abs((found - expected).mean(axis=0)).max() / np.ptp(expected))


def squared_error(path: Path, expected: AnyArray) -> float:
    return float(np.square(outputs_of(path) - expected).mean())


@pytest.mark.parametrize("is_sequential", [True, False])
def test_corrected_biases_take_the_mean_error_out(is_sequential: bool, tmp_path: Path) -> None:
    source = write_block_onnx(tmp_path / "net.onnx", spread=100)
    expected = outputs_of(source, CALIBRATION)
    static = QuantizeStatic(is_per_channel=False)
    apply(static, source, tmp_path / "plain.onnx")
    spec = CorrectBias(is_per_channel=False, is_sequential=is_sequential)
    assert apply(spec, source, tmp_path / "corrected.onnx")["layers"] == 7
    apply(static, tmp_path / "corrected.onnx", tmp_path / "q.onnx")
    plain, corrected = (
        mean_error(tmp_path / "plain.onnx", expected),
        mean_error(tmp_path / "q.onnx", expected),
    )
    assert corrected < 0.5 * plain
    before = {layer.name: layer for layer in open_layers(source).layers}
    for layer in open_layers(tmp_path / "corrected.onnx").layers:
        np.testing.assert_array_equal(layer.weight, before[layer.name].weight)
        assert layer.bias is not None, "the last layer had none"


def test_each_pass_brings_a_per_tensor_file_nearer_to_its_float_network(tmp_path: Path) -> None:
    source = write_block_onnx(tmp_path / "net.onnx", spread=100)
    expected = outputs_of(source)
    errors = {}
    passes: dict[str, list[FileSpec]] = {
        "plain": [],
        "equalized": [Equalize()],
        "corrected": [CorrectBias(is_per_channel=False)],
        "rounded": [RoundWeights(is_per_channel=False, iterations=100)],
        "equalized, rounded": [Equalize(), RoundWeights(is_per_channel=False, iterations=100)],
    }
    for name, specs in passes.items():
        path = source
        for number, spec in enumerate([*specs, QuantizeStatic(is_per_channel=False)]):
            apply(spec, path, tmp_path / f"{number}.onnx")
            path = tmp_path / f"{number}.onnx"
        errors[name] = squared_error(path, expected)
    for name in ("equalized", "corrected", "rounded", "equalized, rounded"):
        assert errors[name] < 0.7 * errors["plain"], errors


def test_layers_that_stay_in_float_keep_their_weights(tmp_path: Path) -> None:
    source = write_block_onnx(tmp_path / "net.onnx")
    spec = RoundWeights(excluded=("expand", "answer"), iterations=5, rows=100, samples=8)
    assert apply(spec, source, tmp_path / "rounded.onnx")["layers"] == 5
    before = {layer.name: layer.weight for layer in open_layers(source).layers}
    after = {layer.name: layer.weight for layer in open_layers(tmp_path / "rounded.onnx").layers}
    is_same = {name: np.array_equal(before[name], after[name]) for name in before}
    assert [name for name, same in is_same.items() if same] == ["expand", "answer"]


@pytest.mark.parametrize(
    "spec", [CorrectBias(excluded=("nose",)), RoundWeights(excluded=("nose",))]
)
def test_a_layer_that_is_not_there_cannot_be_excluded(spec: FileSpec, tmp_path: Path) -> None:
    source = write_block_onnx(tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match="excluded layer 'nose' is not in the model"):
        apply(spec, source, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


def tflite_integers(path: Path) -> dict[str, tuple[AnyArray, AnyArray]]:
    """By name, the int8 constants of a TFLite file and what they stand for."""
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    found = {}
    for row in interpreter.get_tensor_details():
        if row["dtype"] is not np.int8 or not row["name"].endswith(".w"):
            continue
        integers = interpreter.get_tensor(row["index"])
        scales = row["quantization_parameters"]["scales"]
        along = [1] * integers.ndim
        if len(scales) > 1:
            along[row["quantization_parameters"]["quantized_dimension"]] = len(scales)
        found[row["name"]] = (integers, integers * scales.reshape(along))
    return found


@pytest.mark.parametrize("is_per_channel", [True, False])
def test_the_tflite_quantizer_keeps_every_weight_that_was_rounded_for_it(
    is_per_channel: bool, tmp_path: Path
) -> None:
    source, rounded = tmp_path / "net.tflite", tmp_path / "rounded.tflite"
    write_block_tflite(source)
    spec = RoundWeights(is_per_channel=is_per_channel, iterations=20, rows=200, samples=16)
    assert apply(spec, source, rounded)["layers"] == 7
    apply(QuantizeStatic(is_per_channel=is_per_channel), rounded, tmp_path / "q.tflite")
    kept = tflite_integers(tmp_path / "q.tflite")
    stored = {row.name: row for row in open_layers(rounded).layers}
    assert len(kept) == 7
    for name, (integers, meaning) in kept.items():
        layer = stored[name.removesuffix(".w")]
        axis = 3 if layer.kind is LayerKind.DEPTHWISE_CONV else 0
        seen = np.moveaxis(meaning, axis, 0).reshape(layer.outputs, -1)
        wanted = np.moveaxis(layer.weight, 1, -1).reshape(layer.outputs, -1)
        np.testing.assert_allclose(seen, wanted, rtol=1e-5, atol=1e-7)
        assert np.abs(integers.astype(int)).max() == 127


def test_a_corrected_tflite_file_gets_the_bias_that_a_layer_had_not(tmp_path: Path) -> None:
    source, corrected = tmp_path / "net.tflite", tmp_path / "corrected.tflite"
    write_block_tflite(source, spread=100)
    expected = outputs_of(source, CALIBRATION)
    apply(QuantizeStatic(is_per_channel=False), source, tmp_path / "plain.tflite")
    apply(CorrectBias(is_per_channel=False), source, corrected)
    apply(QuantizeStatic(is_per_channel=False), corrected, tmp_path / "q.tflite")
    assert all(layer.bias is not None for layer in open_layers(corrected).layers)
    plain = mean_error(tmp_path / "plain.tflite", expected)
    assert mean_error(tmp_path / "q.tflite", expected) < 0.7 * plain


def test_tflite_has_no_reduced_range(tmp_path: Path) -> None:
    source = write_block_tflite(tmp_path / "net.tflite")
    with pytest.raises(ConfigError, match="leave is_range_reduced out"):
        apply(CorrectBias(is_range_reduced=True), source, tmp_path / "x.tflite")


def test_a_tflite_file_that_leaves_the_batch_open_runs_one_sample_at_a_time(tmp_path: Path) -> None:
    source, opened = write_block_tflite(tmp_path / "net.tflite"), tmp_path / "open.tflite"
    graph = TfliteGraph(source.read_bytes())
    graph.tensors[graph.index_of["image"]].shapeSignature = [-1, 8, 8, 3]
    graph.pack(opened)
    np.testing.assert_array_equal(outputs_of(opened), outputs_of(source))
    assert apply(CorrectBias(), opened, tmp_path / "x.tflite")["layers"] == 7
