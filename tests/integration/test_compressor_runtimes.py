"""Every quantization pass against the real ONNX Runtime and the real LiteRT, on a small network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from support.compressor_rig import a_task, trained_tiny
from support.factories import OWNER_KEY
from trimtab_compressor.agreement import compare_outputs
from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.build import Builder
from trimtab_compressor.cache import Cache
from trimtab_compressor.cli import main
from trimtab_compressor.comparison.compare import Inputs, compare_files
from trimtab_compressor.export.onnx import export_onnx
from trimtab_compressor.export.tflite import export_tflite
from trimtab_compressor.golden import unpack_array
from trimtab_compressor.inspection.graph import Arithmetic
from trimtab_compressor.inspection.inspect_model import describe_file, inspect_file
from trimtab_compressor.passes.quantize_dynamic import (
    quantize_dynamic_onnx,
    quantize_dynamic_tflite,
)
from trimtab_compressor.passes.quantize_static import quantize_static_onnx, quantize_static_tflite
from trimtab_compressor.passes.stage import FileStage
from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.publish import ArtifactPlan, package_built
from trimtab_compressor.recipes import Choice, list_choices
from trimtab_compressor.report.layers import FileLayers, compare_layers
from trimtab_compressor.run_report import RunReport
from trimtab_compressor.runtimes.port import Kernels, fit_samples, run_all
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.specs.base import FileSpec
from trimtab_compressor.specs.quantization import QuantizeDynamic, QuantizeStatic
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError, ModelError
from trimtab_protocol.manifest import ModelFormat

ONNX, TFLITE = ModelFormat.ONNX, ModelFormat.TFLITE
PASSES = {
    (QuantizeDynamic, ONNX): quantize_dynamic_onnx,
    (QuantizeDynamic, TFLITE): quantize_dynamic_tflite,
    (QuantizeStatic, ONNX): quantize_static_onnx,
    (QuantizeStatic, TFLITE): quantize_static_tflite,
}


@pytest.fixture(scope="module")
def task() -> Task:
    return a_task()


@pytest.fixture(scope="module")
def expected(task: Task) -> AnyArray:
    return np.asarray(predict(trained_tiny(task), task.test.inputs).numpy())


@pytest.fixture(scope="module")
def exported(task: Task, tmp_path_factory: pytest.TempPathFactory) -> dict[ModelFormat, Path]:
    folder = tmp_path_factory.mktemp("exported")
    model = trained_tiny(task)
    export_onnx(model, task.input_shape, folder / "net.onnx")
    export_tflite(model, task.input_shape, folder / "net.tflite")
    return {ONNX: folder / "net.onnx", TFLITE: folder / "net.tflite"}


@pytest.fixture(scope="module")
def builder(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return Builder(task, Cache(tmp_path_factory.mktemp("cache")), lambda _: None)


def outputs_of(path: Path, task: Task, kernels: Kernels) -> AnyArray:
    runner = open_model(path, kernels)
    samples = fit_samples(runner.io, task.test.inputs, what="samples")
    return run_all(runner, samples)[runner.io.outputs[0].name]


def quantize(spec: FileSpec, source: Path, target: Path, task: Task) -> Path:
    model_format = ModelFormat(source.suffix[1:])
    io = open_model(source, Kernels.EXACT).io
    samples = fit_samples(io, task.calibration, what="calibration samples")
    stage = FileStage(spec=spec, source=source, target=target, calibration=samples)
    PASSES[(type(spec), model_format)](stage)  # type: ignore[operator]
    return target


@pytest.mark.parametrize("model_format", [ONNX, TFLITE])
@pytest.mark.parametrize("kernels", list(Kernels))
def test_an_export_computes_what_torch_computes(
    model_format: ModelFormat,
    kernels: Kernels,
    exported: dict[ModelFormat, Path],
    task: Task,
    expected: AnyArray,
) -> None:
    found = outputs_of(exported[model_format], task, kernels)
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("kernels", list(Kernels))
@pytest.mark.parametrize(
    ("spec", "model_format"),
    [
        (QuantizeDynamic(is_range_reduced=True), ONNX),
        (QuantizeDynamic(), TFLITE),
        (QuantizeStatic(), ONNX),
        (QuantizeStatic(is_range_reduced=True), ONNX),
        (QuantizeStatic(is_symmetric=True, is_range_reduced=True), ONNX),
        (QuantizeStatic(is_per_channel=False, is_range_reduced=True), ONNX),
        (QuantizeStatic(), TFLITE),
    ],
    ids=str,
)
def test_a_quantized_file_is_smaller_and_agrees_with_its_network(
    *,
    spec: FileSpec,
    model_format: ModelFormat,
    kernels: Kernels,
    exported: dict[ModelFormat, Path],
    task: Task,
    expected: AnyArray,
    tmp_path: Path,
) -> None:
    source = exported[model_format]
    target = quantize(spec, source, tmp_path / f"q.{model_format.value}", task)
    assert target.stat().st_size < source.stat().st_size
    found = compare_outputs(outputs_of(target, task, kernels), expected)
    assert found.max_abs_error > 0, "integers round"
    assert found.cosine > 0.97
    assert found.same_answer > 0.97


def test_symmetric_and_asymmetric_differ_in_the_type_of_activations(
    exported: dict[ModelFormat, Path], task: Task, tmp_path: Path
) -> None:
    for is_symmetric, name in ((True, "INT8"), (False, "UINT8")):
        spec = QuantizeStatic(is_symmetric=is_symmetric)
        graph = onnx.load(quantize(spec, exported[ONNX], tmp_path / "q.onnx", task)).graph
        points = {row.input[2] for row in graph.node if row.op_type == "QuantizeLinear"}
        types = {row.data_type for row in graph.initializer if row.name in points}
        assert types == {getattr(onnx.TensorProto, name)}


def test_a_reduced_range_keeps_weights_to_seven_bits(
    exported: dict[ModelFormat, Path], task: Task, tmp_path: Path
) -> None:
    largest = {}
    for is_reduced in (False, True):
        spec = QuantizeStatic(is_range_reduced=is_reduced)
        graph = onnx.load(quantize(spec, exported[ONNX], tmp_path / "q.onnx", task)).graph
        weights = [
            onnx.numpy_helper.to_array(row).astype(int)
            for row in graph.initializer
            if row.data_type == onnx.TensorProto.INT8 and len(row.dims) > 1
        ]
        largest[is_reduced] = max(int(abs(row).max()) for row in weights)
    assert largest[True] <= 64 < largest[False] <= 128


def test_dynamic_onnx_leaves_convolutions_alone(
    exported: dict[ModelFormat, Path], task: Task, tmp_path: Path
) -> None:
    path = quantize(QuantizeDynamic(), exported[ONNX], tmp_path / "q.onnx", task)
    kinds = [row.op_type for row in onnx.load(path).graph.node]
    assert kinds.count("MatMulInteger") == 2
    assert "Conv" in kinds
    assert "ConvInteger" not in kinds


def test_a_model_in_which_nothing_can_be_quantized_is_refused(task: Task, tmp_path: Path) -> None:
    export_onnx(nn.Sequential(nn.ReLU(), nn.Flatten()), task.input_shape, tmp_path / "relu.onnx")
    export_tflite(nn.Sequential(nn.ReLU()), task.input_shape, tmp_path / "relu.tflite")
    for source in (tmp_path / "relu.onnx", tmp_path / "relu.tflite"):
        target = tmp_path / f"q{source.suffix}"
        with pytest.raises(ModelError, match="nothing was quantized"):
            quantize(QuantizeDynamic(), source, target, task)
        if source.suffix == ".onnx":
            assert not target.exists()


def test_tflite_has_no_symmetric_activations(
    exported: dict[ModelFormat, Path], task: Task, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="one static int8 scheme"):
        quantize(QuantizeStatic(is_symmetric=True), exported[TFLITE], tmp_path / "q.tflite", task)


def test_a_network_that_cannot_be_exported_is_a_model_error(task: Task, tmp_path: Path) -> None:
    class DataDependent(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if bool(x.sum() > 0) else x

    with pytest.raises(ModelError, match="ONNX"):
        export_onnx(DataDependent(), task.input_shape, tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="TFLite"):
        export_tflite(DataDependent(), task.input_shape, tmp_path / "net.tflite")


@pytest.mark.parametrize("model_format", [ONNX, TFLITE])
def test_every_recipe_gives_an_artifact_whose_golden_vectors_hold_on_the_default_kernels(
    model_format: ModelFormat, builder: Builder, task: Task
) -> None:
    plan = ArtifactPlan(name="bars", private_key=OWNER_KEY, budgets={})
    for choice in list_choices([], (model_format,)):
        built = builder.build(choice)
        assert built.quality.exact is not None
        assert built.quality.exact >= 0.9, choice
        manifest = package_built(built, task, builder.tools(model_format), plan, 1).manifest
        assert manifest.lineage.passes[0].name == "train"
        assert all(row.seconds is not None for row in manifest.lineage.passes)
        assert (manifest.lineage.base_sha256 is None) == (choice.recipe == "fp32")
        runner = open_model(built.path, Kernels.DEFAULT)
        for vector in manifest.golden.vectors:
            inputs = {name: unpack_array(row) for name, row in vector.inputs.items()}
            for name, found in runner.run_once(inputs).items():
                wanted = unpack_array(vector.outputs[name])
                assert np.abs(found - wanted).max() <= manifest.golden.max_abs_error, choice


def test_a_second_build_computes_nothing(builder: Builder, task: Task) -> None:
    choice = Choice("prune50_static_w8a8", ONNX)
    first = builder.build(choice)
    told: list[str] = []
    again = Builder(task, builder.cache, told.append).build(choice)
    assert told == []
    assert (again.path, again.quality, again.passes) == (first.path, first.quality, first.passes)


def test_other_data_is_not_taken_from_the_cache(builder: Builder, task: Task) -> None:
    choice = Choice("static_w8a8_asym", ONNX)
    builder.build(choice)
    told: list[str] = []
    other = a_task(calibration=task.calibration[:20] * 0.5)
    Builder(other, builder.cache, told.append).build(choice)
    assert [line.split()[0] for line in told] == ["quantize_static", "evaluate"]


def test_run_writes_files_and_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "task.py").write_text(
        "from support.compressor_rig import a_task\nTASK = a_task()\n"
    )
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    options = ["run", str(tmp_path / "task.py"), "--out", str(tmp_path / "out"), "--format", "onnx"]
    assert main([*options, "--recipe", "fp32", "--recipe", "dynamic_w8"]) == 0
    report = RunReport.model_validate(json.loads((tmp_path / "out" / "results.json").read_text()))
    assert [row.file for row in report.candidates] == ["fp32.onnx", "dynamic_w8.onnx"]
    for row in report.candidates:
        assert (tmp_path / "out" / row.file).stat().st_size == row.size_bytes
        assert row.quality.exact is not None
    assert "dynamic_w8" in capsys.readouterr().out
    assert main(["run", str(tmp_path / "task.py"), "--out", str(tmp_path / "task.py")]) == 2


def test_the_step_of_a_quantized_output_is_read_from_the_file(
    exported: dict[ModelFormat, Path], task: Task, tmp_path: Path
) -> None:
    for model_format, source in exported.items():
        assert open_model(source, Kernels.EXACT).output_step() is None
        path = quantize(QuantizeStatic(), source, tmp_path / f"q.{model_format.value}", task)
        step = open_model(path, Kernels.EXACT).output_step()
        assert step is not None
        found = outputs_of(path, task, Kernels.EXACT) / step
        assert np.abs(found - np.round(found)).max() < 1e-2


def test_both_formats_of_one_network_are_described_alike(
    exported: dict[ModelFormat, Path], task: Task, tmp_path: Path
) -> None:
    onnx_file, tflite_file = (inspect_file(exported[row]) for row in ModelFormat)
    for found in (onnx_file, tflite_file):
        assert found.totals.macs.value == 9 * 16 * 36 + 144 * 32 + 32 * 3
        assert found.totals.parameters == 16 * 10 + 32 * 145 + 3 * 33
        assert found.runs_here is not None
        assert found.runs_here.runs
    static = quantize(QuantizeStatic(), exported[ModelFormat.TFLITE], tmp_path / "s.tflite", task)
    dynamic = quantize(QuantizeDynamic(), exported[ModelFormat.TFLITE], tmp_path / "d.tflite", task)
    assert set(describe_file(static).arithmetic) == {Arithmetic.INT8}
    assert set(describe_file(dynamic).arithmetic) == {Arithmetic.DYNAMIC_INT8}
    assert describe_file(static).stored["int8"].elements == 16 * 9 + 32 * 144 + 3 * 32


def test_an_onnx_file_and_its_quantized_tflite_twin_are_compared_layer_by_layer(
    exported: dict[ModelFormat, Path], task: Task, tmp_path: Path
) -> None:
    static = quantize(QuantizeStatic(), exported[ModelFormat.TFLITE], tmp_path / "s.tflite", task)
    inputs = Inputs({"input": task.test.inputs}, task.test.labels, "test")
    found = compare_files(exported[ModelFormat.ONNX], static, inputs)
    assert found.b.int8_macs_ratio.value == 1.0
    assert all(row.cosine > 0.99 for row in found.outputs)
    assert found.a.accuracy_exact.value is not None
    base, other = FileLayers.of(exported[ModelFormat.TFLITE]), FileLayers.of(static)
    name = open_model(static, Kernels.EXACT).io.inputs[0].name
    samples = [{name: task.calibration[row : row + 1]} for row in range(4)]
    compared = compare_layers("static", base, other, samples)
    assert len(compared.errors) == 3
    assert all((row.weights_db.value or 0) > 35 for row in compared.errors)
    assert all((row.activations_db.value or 0) > 10 for row in compared.errors)
    shown = {row.layer for row in compared.histograms}
    assert {(row.layer, row.what) for row in compared.histograms} == {
        (layer, what) for layer in shown for what in ("weights", "activations")
    }
