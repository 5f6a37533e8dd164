"""What `inspect` says of a file: counted, not guessed, and absent with a reason where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from support.counted_models import draw, quantized, write_graph, write_image_net
from support.tiny_tflite import make_tflite
from trimtab_compressor.cli import main
from trimtab_compressor.inspection.describe import describe_layer
from trimtab_compressor.inspection.description import Inspection
from trimtab_compressor.inspection.graph import Affine, Arithmetic, LayerKind
from trimtab_compressor.inspection.inspect_model import describe_file, inspect_file, read_graph
from trimtab_compressor.inspection.weights import dequantize, real_weight
from trimtab_compressor.specs.quantization import QuantizeDynamic, QuantizeStatic
from trimtab_protocol.errors import ConfigError, ErrorCode, ModelError


@pytest.fixture(scope="module")
def image_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_net(tmp_path_factory.mktemp("models") / "net.onnx")


@pytest.fixture(scope="module")
def static_net(image_net: Path) -> Path:
    return quantized(image_net, image_net.with_name("static.onnx"), QuantizeStatic())


@pytest.fixture(scope="module")
def dynamic_net(image_net: Path) -> Path:
    return quantized(image_net, image_net.with_name("dynamic.onnx"), QuantizeDynamic())


def test_work_and_parameters_are_those_that_were_counted_by_hand(image_net: Path) -> None:
    found = describe_file(image_net)
    assert [(row.kind, row.macs, row.parameters) for row in found.layers] == [
        (LayerKind.CONV, 2592, 80),
        (LayerKind.DEPTHWISE_CONV, 2592, 72),
        (LayerKind.DENSE, 288, 292),
    ]
    assert found.totals.macs.value == 2592 + 2592 + 288
    assert found.totals.parameters == 80 + 72 + 292
    assert found.totals.parameter_bytes == 4 * (80 + 72 + 292)
    assert found.inputs[0].shape == ("batch", 1, 8, 8)


def test_the_peak_is_that_of_the_two_largest_neighbours(image_net: Path) -> None:
    peak = describe_file(image_net).totals.activations_peak_bytes
    assert peak.value == 2 * 8 * 6 * 6 * 4  # a convolution's output beside its activation


def test_a_quantized_file_has_the_same_work_with_integers(static_net: Path) -> None:
    found = describe_file(static_net)
    assert found.totals.macs.value == 2592 + 2592 + 288
    assert set(found.arithmetic) == {Arithmetic.INT8}
    assert found.arithmetic[Arithmetic.INT8].macs_ratio == 1.0
    assert found.stored["int8"].elements == 72 + 72 + 288
    assert found.totals.parameters == 80 + 72 + 292
    assert "fuses" in (found.totals.activations_peak_bytes.absent or "")


def test_a_layer_is_called_int8_exactly_where_onnx_runtime_fuses_it(
    static_net: Path, image_net: Path, tmp_path: Path
) -> None:
    for path in (
        static_net,
        quantized(image_net, tmp_path / "sym.onnx", QuantizeStatic(is_symmetric=True)),
    ):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 4
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        kinds = [row.op_type for row in onnx.load(tmp_path / "optimized.onnx").graph.node]
        fused = sum(kind in {"QLinearConv", "QGemm"} for kind in kinds)
        ours = sum(row.arithmetic is Arithmetic.INT8 for row in describe_file(path).layers)
        assert ours == fused == 3


def test_a_convolution_whose_output_stays_float_only_keeps_its_weights_as_integers(
    tmp_path: Path, static_net: Path
) -> None:
    model = onnx.load(static_net)
    conv = next(row for row in model.graph.node if row.op_type == "Conv")
    taker = next(row for row in model.graph.node if conv.output[0] in row.input)
    taker.op_type, taker.input[:] = "Relu", [conv.output[0]]  # in place of QuantizeLinear
    after = next(row for row in model.graph.node if taker.output[0] in row.input)
    after.op_type, after.input[:] = "Identity", [taker.output[0]]
    onnx.save(model, tmp_path / "cut.onnx")
    first = describe_file(tmp_path / "cut.onnx").layers[0]
    assert first.arithmetic is Arithmetic.WEIGHT_ONLY_INT8


def test_dynamic_quantization_is_told_from_static(dynamic_net: Path) -> None:
    found = describe_file(dynamic_net)
    assert found.arithmetic[Arithmetic.DYNAMIC_INT8].layers == 1
    assert found.arithmetic[Arithmetic.FLOAT32].layers == 2
    assert found.totals.macs.value == 2592 + 2592 + 288


def test_weights_are_read_back_to_what_they_were(
    image_net: Path, static_net: Path, dynamic_net: Path
) -> None:
    floats = [real_weight(row) for row in read_graph(image_net).layers]
    for path in (static_net, dynamic_net):
        for layer, expected in zip(read_graph(path).layers, floats, strict=True):
            found = real_weight(layer)
            assert found is not None
            assert expected is not None
            found = found if found.shape == expected.shape else found.T
            assert np.abs(found - expected).max() < 0.02


def test_integers_are_real_numbers_from_their_zero_point_on_along_their_axis() -> None:
    affine = Affine(np.array([0.5, 2.0]), np.array([1.0, -1.0]), 1)
    stored = np.array([[1, 0], [3, 1]], np.int8)
    assert dequantize(stored, affine).tolist() == [[0.0, 2.0], [1.0, 4.0]]


def test_a_file_of_another_kind_is_known_by_its_missing_mark(
    image_net: Path, tmp_path: Path
) -> None:
    other = tmp_path / "really.tflite"
    other.write_bytes(image_net.read_bytes())
    with pytest.raises(ModelError, match="the mark TFL3 is missing"):
        read_graph(other)


def test_free_axes_leave_the_work_open_until_a_shape_is_given(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    path = write_graph(
        tmp_path / "free.onnx", [node], {"w": draw(2, 3, 1, 1)}, taken=("n", 3, "height", "width")
    )
    found = describe_file(path)
    assert "x (2, 3)" in (found.totals.macs.absent or "")
    assert found.layers[0].macs is None
    assert describe_file(path, {"x": (1, 3, 4, 5)}).totals.macs.value == 4 * 5 * 3 * 2
    with pytest.raises(ConfigError, match="no input 'z'"):
        describe_file(path, {"z": (1,)})
    with pytest.raises(ConfigError, match="axis 1 of input 'x' is fixed to 3"):
        describe_file(path, {"x": (1, 4, 4, 4)})
    with pytest.raises(ConfigError, match="has 4 axes"):
        describe_file(path, {"x": (1, 3)})


def test_shapes_that_onnx_cannot_infer_come_from_one_run(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("FusedGemm", ["x", "w"], ["h"], domain="com.microsoft", activation="Relu"),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    constants = {"w": draw(6, 5), "v": draw(5, 2)}
    path = write_graph(tmp_path / "fused.onnx", nodes, constants, taken=("n", 6))
    found = describe_file(path)
    assert found.totals.macs.value == 6 * 5 + 5 * 2
    assert "one run" in found.notes[0]


def test_a_custom_operator_is_said_plainly_and_blocks_every_pass(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Swirl", ["h"], ["y"], domain="com.example"),
    ]
    path = write_graph(tmp_path / "custom.onnx", nodes, {"w": draw(4, 4)}, taken=("n", 4))
    found = inspect_file(path)
    assert found.foreign_operators == ("com.example::Swirl",)
    assert found.runs_here is not None
    assert not found.runs_here.loads
    assert "Swirl" in found.runs_here.reason
    assert not any(row.is_applicable for row in found.passes)
    reasons = {row.pass_name: row.reason for row in found.passes}
    assert "custom operators: com.example::Swirl" in reasons["quantize_static"]


def test_passes_say_why_they_apply_and_why_not(
    image_net: Path, static_net: Path, tmp_path: Path
) -> None:
    fresh = {row.pass_name: row for row in inspect_file(image_net).passes}
    assert fresh["quantize_static"].is_applicable
    assert "needs calibration samples" in fresh["quantize_static"].reason
    assert "needs no data" in fresh["quantize_dynamic"].reason
    assert "task file" in fresh["train"].reason
    done = {row.pass_name: row for row in inspect_file(static_net).passes}
    assert "already done: 3 layers int8" in done["quantize_static"].reason
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    plain = inspect_file(write_graph(tmp_path / "conv.onnx", [node], {"w": draw(2, 1, 3, 3)}))
    assert (
        "no dense layer" in {row.pass_name: row.reason for row in plain.passes}["quantize_dynamic"]
    )


def test_a_tflite_file_is_read_without_a_converter(tmp_path: Path) -> None:
    path = tmp_path / "times_two.tflite"
    path.write_bytes(make_tflite())
    found = inspect_file(path)
    assert [(row.operator, row.count) for row in found.operators] == [("MUL", 1)]
    assert found.totals.macs.value == 0
    assert found.totals.activations_peak_bytes.value == 2 * 4 * 4
    assert found.runs_here is not None
    assert found.runs_here.runs
    assert any("no signature" in note for note in found.notes)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_rubbish_is_one_clear_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rubbish{suffix}"
    path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(range(256)))
    with pytest.raises(ModelError, match=r"cannot be read|holds no operators") as caught:
        read_graph(path)
    assert caught.value.code is ErrorCode.MODEL_UNREADABLE


def test_the_command_prints_tables_or_one_document(
    image_net: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(image_net), "--layers", "1"]) == 0
    text = capsys.readouterr().out
    assert "The 1 heaviest of 3 layers" in text
    assert "5,472" in text
    assert main(["inspect", str(image_net), "--json"]) == 0
    found = Inspection.model_validate(json.loads(capsys.readouterr().out))
    assert found.totals.macs.value == 5472
    assert main(["inspect", str(image_net), "--shape", "x:3"]) == 2
    assert "must look like" in capsys.readouterr().err


def test_a_layer_is_called_by_its_node_or_else_by_its_output_as_recipes_do(
    tmp_path: Path, image_net: Path
) -> None:
    layers = [describe_layer(row) for row in read_graph(image_net).layers]
    assert [row.name for row in layers] == ["c", "d", "y"]
    assert [row.weight for row in layers] == ["conv.weight", "dw.weight", "dense.weight"]
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="classify")
    path = write_graph(tmp_path / "named.onnx", [node], {"w": draw(4, 4)}, taken=("n", 4))
    assert describe_layer(read_graph(path).layers[0]).name == "classify"
