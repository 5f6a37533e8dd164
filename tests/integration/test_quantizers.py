"""Every scheme of quantization on the real runtimes, and files as other people write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantType,
    quant_pre_process,
    quantize_static,
)
from torch import nn

from support.compressor_rig import a_task, trained_tiny
from trimtab_compressor.agreement import compare_outputs
from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.evaluate import run_file
from trimtab_compressor.export.onnx import export_onnx
from trimtab_compressor.export.tflite import export_tflite
from trimtab_compressor.passes.stage import FileStage, Findings
from trimtab_compressor.passes.table import FILE_PASSES
from trimtab_compressor.passes.tflite_files import (
    list_layers,
    pack_inside,
    read_tflite,
    write_tflite,
)
from trimtab_compressor.passes.tflite_rules import static_rules
from trimtab_compressor.quiet import quiet
from trimtab_compressor.runtimes.port import Arrays, Kernels, fit_samples
from trimtab_compressor.runtimes.table import format_of, open_model
from trimtab_compressor.specs.base import FileSpec
from trimtab_compressor.specs.quantization import (
    QuantizeDynamic,
    QuantizeFloat16,
    QuantizeStatic,
    QuantizeWeights,
)
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError, ModelError
from trimtab_protocol.manifest import ModelFormat

with quiet():
    import litert_torch
    from ai_edge_quantizer import quantizer

ONNX, TFLITE = ModelFormat.ONNX, ModelFormat.TFLITE
CONV, DENSE = "node_conv2d", "node_linear"


@pytest.fixture(scope="module")
def task() -> Task:
    return a_task()


@pytest.fixture(scope="module")
def exported(task: Task, tmp_path_factory: pytest.TempPathFactory) -> dict[ModelFormat, Path]:
    folder = tmp_path_factory.mktemp("exported")
    model = trained_tiny(task)
    export_onnx(model, task.input_shape, folder / "net.onnx")
    export_tflite(model, task.input_shape, folder / "net.tflite")
    return {ONNX: folder / "net.onnx", TFLITE: folder / "net.tflite"}


def samples_for(path: Path, rows: AnyArray | Arrays) -> Arrays:
    return fit_samples(open_model(path, Kernels.EXACT).io, rows, what="samples")


def quantize(
    spec: FileSpec, source: Path, target: Path, calibration: AnyArray | Arrays
) -> Findings:
    stage = FileStage(spec, source, target, samples_for(source, calibration))
    return FILE_PASSES[(spec.pass_name, format_of(source))](stage)


def run(path: Path, rows: AnyArray | Arrays, kernels: Kernels = Kernels.EXACT) -> AnyArray:
    return run_file(path, samples_for(path, rows), kernels)[0]


@pytest.mark.parametrize(
    ("model_format", "spec", "at_most"),
    [
        (ONNX, QuantizeStatic(is_weight_unsigned=True), 0.6),
        (ONNX, QuantizeStatic(is_weight_unsigned=True, is_per_channel=False), 0.6),
        (ONNX, QuantizeStatic(is_range_reduced=True, calibrator="percentile"), 0.6),
        (ONNX, QuantizeStatic(is_range_reduced=True, calibrator="entropy"), 0.6),
        (ONNX, QuantizeDynamic(is_range_reduced=True, has_convolutions=True), 0.6),
        (ONNX, QuantizeDynamic(is_range_reduced=True, is_per_channel=True), 0.6),
        (ONNX, QuantizeWeights(), 0.6),
        (ONNX, QuantizeWeights(bits=4), 0.5),
        (ONNX, QuantizeWeights(bits=4, is_symmetric=False, block_size=16), 0.5),
        (ONNX, QuantizeFloat16(), 0.7),
        (TFLITE, QuantizeStatic(is_per_channel=False), 0.5),
        (TFLITE, QuantizeStatic(calibrator="percentile"), 0.5),
        (TFLITE, QuantizeStatic(calibrator="entropy"), 0.5),
        (TFLITE, QuantizeStatic(activation_bits=16), 0.5),
        (TFLITE, QuantizeWeights(), 0.5),
        (TFLITE, QuantizeWeights(bits=4), 0.4),
        (TFLITE, QuantizeFloat16(), 0.7),
    ],
    ids=str,
)
def test_a_scheme_makes_the_file_smaller_and_agrees_on_both_kernels(
    *,
    model_format: ModelFormat,
    spec: FileSpec,
    at_most: float,
    exported: dict[ModelFormat, Path],
    task: Task,
    tmp_path: Path,
) -> None:
    source, target = exported[model_format], tmp_path / f"q.{model_format.value}"
    findings = quantize(spec, source, target, task.calibration)
    changed = "float16_weights" if isinstance(spec, QuantizeFloat16) else "integer_weights"
    assert int(str(findings[changed])) >= 2
    assert target.stat().st_size < at_most * source.stat().st_size
    expected = run(source, task.test.inputs)
    for kernels in Kernels:
        found = compare_outputs(run(target, task.test.inputs, kernels), expected)
        assert found.max_abs_error > 0, "numbers were rounded"
        assert found.cosine > 0.99
        assert found.same_answer > 0.97


def test_unsigned_weights_have_a_zero_point_of_their_own(
    exported: dict[ModelFormat, Path], task: Task, tmp_path: Path
) -> None:
    target = tmp_path / "q.onnx"
    quantize(QuantizeStatic(is_weight_unsigned=True), exported[ONNX], target, task.calibration)
    weights = [row for row in onnx.load(target).graph.initializer if len(row.dims) > 1]
    assert {row.data_type for row in weights} == {TensorProto.UINT8}
    assert min(int(numpy_helper.to_array(row).min()) for row in weights) < 50


def test_our_whole_range_is_onnx_runtimes_own(
    exported: dict[ModelFormat, Path], task: Task, tmp_path: Path
) -> None:
    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            self.rows = iter([{"input": task.calibration}])

        def get_next(self) -> dict[str, AnyArray] | None:
            return next(self.rows, None)

    with quiet():
        quant_pre_process(exported[ONNX], tmp_path / "prepared.onnx", skip_symbolic_shape=True)
        quantize_static(
            tmp_path / "prepared.onnx",
            tmp_path / "theirs.onnx",
            Reader(),
            per_channel=True,
            activation_type=QuantType.QUInt8,
        )
    quantize(QuantizeStatic(), exported[ONNX], tmp_path / "ours.onnx", task.calibration)
    ours, theirs = (run(tmp_path / name, task.test.inputs) for name in ("ours.onnx", "theirs.onnx"))
    assert np.abs(ours - theirs).max() < 1e-4


def test_our_moving_average_is_the_tflite_quantizers_own(
    exported: dict[ModelFormat, Path], task: Task, tmp_path: Path
) -> None:
    spec = QuantizeStatic(calibrator="moving_average")
    with quiet():
        worker = quantizer.Quantizer(str(exported[TFLITE]), static_rules(spec))
        rows = [{"args_0": task.calibration[at : at + 1]} for at in range(len(task.calibration))]
        worker.quantize(worker.calibrate({"serving_default": rows})).export_model(
            str(tmp_path / "theirs.tflite"), overwrite=True
        )
    quantize(spec, exported[TFLITE], tmp_path / "ours.tflite", task.calibration)
    ours, theirs = (
        run(tmp_path / name, task.test.inputs) for name in ("ours.tflite", "theirs.tflite")
    )
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize(
    ("spec", "left"),
    [
        (QuantizeStatic(excluded=(CONV,)), {"float32_weights": 1, "integer_weights": 2}),
        (
            QuantizeStatic(excluded=(CONV, DENSE), excluded_type="float16"),
            {"float32_weights": 0, "float16_weights": 2, "integer_weights": 1},
        ),
        (QuantizeDynamic(excluded=(DENSE,)), {"float32_weights": 2, "integer_weights": 1}),
        (QuantizeWeights(excluded=(DENSE,)), {"float32_weights": 2, "integer_weights": 1}),
        (QuantizeFloat16(excluded=(CONV,)), {"float32_weights": 1, "float16_weights": 2}),
    ],
    ids=str,
)
@pytest.mark.parametrize("model_format", [ONNX, TFLITE])
def test_excluded_layers_keep_their_float_weights(
    *,
    spec: FileSpec,
    left: dict[str, int],
    model_format: ModelFormat,
    exported: dict[ModelFormat, Path],
    task: Task,
    tmp_path: Path,
) -> None:
    source, target = exported[model_format], tmp_path / f"q.{model_format.value}"
    if model_format is TFLITE:
        spec, left = in_tflite(spec, left, source)
    findings = quantize(spec, source, target, task.calibration)
    assert {name: findings.get(name, 0) for name in left} == left
    expected = run(source, task.test.inputs)
    assert compare_outputs(run(target, task.test.inputs), expected).same_answer > 0.97


def in_tflite(
    spec: FileSpec, left: dict[str, int], source: Path
) -> tuple[FileSpec, dict[str, int]]:
    """The same layers by the names of their outputs; TFLite quantizes convolutions too."""
    layers = list_layers(read_tflite(source))
    names = {
        CONV: next(name for name in layers if "Conv2d_0;1" in name),
        DENSE: next(name for name in layers if "Linear_4" in name),
    }
    excluded = tuple(names[name] for name in getattr(spec, "excluded"))  # noqa: B009 - of the pass
    if isinstance(spec, QuantizeDynamic | QuantizeWeights):
        left = {"float32_weights": 1, "integer_weights": 2}
    return replace(spec, excluded=excluded), left  # type: ignore[call-arg]  # all of these have it


@pytest.mark.parametrize("model_format", [ONNX, TFLITE])
def test_an_excluded_layer_that_is_not_there_is_named(
    model_format: ModelFormat, exported: dict[ModelFormat, Path], task: Task, tmp_path: Path
) -> None:
    target = tmp_path / f"q.{model_format.value}"
    with pytest.raises(ConfigError, match="excluded layer 'node_conv' is not in the model; near"):
        quantize(
            QuantizeStatic(excluded=("node_conv",)),
            exported[model_format],
            target,
            task.calibration,
        )
    assert not target.exists()


@pytest.mark.parametrize(
    ("model_format", "spec", "said"),
    [
        (ONNX, QuantizeStatic(activation_bits=16), "no integer kernels for 16-bit"),
        (TFLITE, QuantizeStatic(is_symmetric=True), "one static int8 scheme"),
        (TFLITE, QuantizeStatic(is_range_reduced=True), "no is_range_reduced"),
        (TFLITE, QuantizeStatic(is_weight_unsigned=True), "no is_weight_unsigned"),
        (TFLITE, QuantizeDynamic(is_per_channel=True), "per tensor in dense layers"),
        (TFLITE, QuantizeWeights(is_symmetric=False), "lie around zero"),
    ],
    ids=str,
)
def test_what_a_format_does_not_have_is_refused_with_the_reason(
    *,
    model_format: ModelFormat,
    spec: FileSpec,
    said: str,
    exported: dict[ModelFormat, Path],
    task: Task,
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=said):
        quantize(spec, exported[model_format], tmp_path / "q.out", task.calibration)


@pytest.mark.parametrize("model_format", [ONNX, TFLITE])
def test_a_file_that_is_quantized_already_is_refused(
    model_format: ModelFormat, exported: dict[ModelFormat, Path], task: Task, tmp_path: Path
) -> None:
    once, twice = (tmp_path / f"{name}.{model_format.value}" for name in ("once", "twice"))
    quantize(QuantizeStatic(), exported[model_format], once, task.calibration)
    with pytest.raises(ModelError, match=r"nothing was quantized|refused the model"):
        quantize(QuantizeStatic(), once, twice, task.calibration)
    assert not twice.exists()


def test_a_tflite_file_without_a_signature_is_quantized(
    exported: dict[ModelFormat, Path], task: Task, tmp_path: Path
) -> None:
    model = read_tflite(exported[TFLITE])
    model.signatureDefs = None
    write_tflite(model, tmp_path / "bare.tflite")
    quantize(QuantizeStatic(), tmp_path / "bare.tflite", tmp_path / "q.tflite", task.calibration)
    expected = run(exported[TFLITE], task.test.inputs)
    assert compare_outputs(run(tmp_path / "q.tflite", task.test.inputs), expected).cosine > 0.99


class TwoInputs(nn.Module):
    """A dense layer for each input, added."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.narrow = nn.Linear(300, 300), nn.Linear(4, 300)

    def forward(self, wide: torch.Tensor, narrow: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.wide(wide) + self.narrow(narrow)
        return found


def write_two_inputs_onnx(model: TwoInputs, path: Path) -> Path:
    with torch.no_grad():
        weights = [numpy_helper.from_array(model.wide.weight.T.numpy().copy(), "w")]
        weights.append(numpy_helper.from_array(model.narrow.weight.T.numpy().copy(), "n"))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["wide", "w"], ["a"]),
            helper.make_node("MatMul", ["narrow", "n"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["y"]),
        ],
        "two",
        [
            helper.make_tensor_value_info("wide", TensorProto.FLOAT, ["batch", 300]),
            helper.make_tensor_value_info("narrow", TensorProto.FLOAT, ["batch", 4]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 300])],
        weights,
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def write_two_inputs_tflite(model: TwoInputs, path: Path) -> Path:
    with quiet():
        sample = (torch.zeros(1, 300), torch.zeros(1, 4))
        litert_torch.convert(model.eval(), sample).export(str(path))
    return path


@pytest.mark.parametrize("write", [write_two_inputs_onnx, write_two_inputs_tflite])
def test_a_model_of_two_inputs_is_calibrated_on_both(
    write: Callable[[TwoInputs, Path], Path], tmp_path: Path
) -> None:
    suffix = write.__name__.rsplit("_", 1)[1]
    source = write(TwoInputs(), tmp_path / f"two.{suffix}")
    random = np.random.default_rng(0)
    names = [row.name for row in open_model(source, Kernels.EXACT).io.inputs]
    sizes = {
        name: open_model(source, Kernels.EXACT).io.inputs[at].shape[1]
        for at, name in enumerate(names)
    }
    rows = {
        name: (random.normal(size=(40, size)) * (1 if size == 300 else 50)).astype(np.float32)
        for name, size in sizes.items()
        if size is not None
    }
    quantize(QuantizeStatic(), source, tmp_path / f"q.{suffix}", rows)
    found = run(tmp_path / f"q.{suffix}", rows)
    assert compare_outputs(found, run(source, rows)).cosine > 0.99


def test_weights_behind_a_tflite_file_are_put_inside(
    exported: dict[ModelFormat, Path], task: Task, tmp_path: Path
) -> None:
    path = put_weights_outside(exported[TFLITE], tmp_path / "outside.tflite")
    before = run(path, task.test.inputs)
    assert np.array_equal(before, run(exported[TFLITE], task.test.inputs))
    assert count_outside(path) > 0
    pack_inside(path)
    assert count_outside(path) == 0
    assert np.array_equal(run(path, task.test.inputs), before)


def put_weights_outside(source: Path, target: Path) -> Path:
    """As newer converters write large models: buffers behind the flatbuffer, found by their offset."""
    model = read_tflite(source)
    large = [row for row in model.buffers if row.data is not None and len(row.data) > 1000]
    rows = [bytes(row.data) for row in large]
    for place in (1 << 20, None):  # first only to learn how long the flatbuffer is
        start = place or len(flatbuffer_utils.convert_object_to_bytearray(model))
        for buffer, data in zip(large, rows, strict=True):
            start += -start % 16
            buffer.data, buffer.offset, buffer.size = None, start, len(data)
            start += len(data)
    whole = bytearray(flatbuffer_utils.convert_object_to_bytearray(model))
    for buffer, data in zip(large, rows, strict=True):
        whole += bytes(buffer.offset - len(whole)) + data
    target.write_bytes(whole)
    return target


def count_outside(path: Path) -> int:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    return sum(row.offset > 1 for row in model.buffers)


def test_a_weight_that_float16_cannot_hold_is_named(tmp_path: Path) -> None:
    model = TwoInputs()
    with torch.no_grad():
        model.wide.weight[0, 0] = 1e5
    source = write_two_inputs_onnx(model, tmp_path / "two.onnx")
    rows = {"wide": np.ones((2, 300), np.float32), "narrow": np.ones((2, 4), np.float32)}
    with pytest.raises(ModelError, match="weight 'w' holds 1e"):
        quantize(QuantizeFloat16(), source, tmp_path / "q.onnx", rows)


def test_what_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(b"nothing of the kind" * 10)
    with pytest.raises(ModelError, match="cannot be read as a TFLite model"):
        read_tflite(tmp_path / "net.tflite")
