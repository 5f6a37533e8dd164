"""The ladder on the real ONNX Runtime: a network that a naive quantizer breaks, and its way back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from support.compressor_rig import a_task, trained_tiny
from trimtab_compressor.agreement import top1_accuracy
from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.build import Builder
from trimtab_compressor.cache import Cache
from trimtab_compressor.cli import main
from trimtab_compressor.evaluate import run_file
from trimtab_compressor.export.onnx import export_onnx
from trimtab_compressor.passes.quantize_verified import quantize_verified
from trimtab_compressor.passes.stage import FileStage, Findings, Validation
from trimtab_compressor.recipe import Choice, Recipe
from trimtab_compressor.recipes import SHIPPED
from trimtab_compressor.rescue.bench import TaskBench
from trimtab_compressor.rescue.report import RescueReport
from trimtab_compressor.rescue.rungs import Setting
from trimtab_compressor.runtimes.port import Kernels
from trimtab_compressor.specs.quantization import QuantizeStatic, QuantizeVerified
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ModelError
from trimtab_protocol.manifest import ModelFormat

SPREAD = 5000.0
"""How much larger one channel of the broken network is than the others."""


@pytest.fixture(scope="module")
def task() -> Task:
    return a_task()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def uneven(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained network with one channel of a huge range: the same function in float."""
    model = trained_tiny(task)
    assert isinstance(model, nn.Sequential)
    first, second = model[0], model[4]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Linear)
    assert first.bias is not None
    factors = torch.ones(first.out_channels)
    factors[0] = SPREAD
    with torch.no_grad():
        first.weight *= factors.view(-1, 1, 1, 1)
        first.bias *= factors
        second.weight /= factors.repeat_interleave(9)  # (hidden, filters * 9), channels first
    path = tmp_path_factory.mktemp("uneven") / "net.onnx"
    export_onnx(model, task.input_shape, path)
    return path


def climb(source: Path, target: Path, task: Task, cache: Cache | None = None) -> Findings:
    reference = run(source, task)
    stage = FileStage(
        spec=QuantizeVerified(max_drop=0.5),
        source=source,
        target=target,
        calibration={"input": task.calibration},
        validation=Validation({"input": task.test.inputs}, task.test.labels, reference),
        cache=cache,
    )
    return quantize_verified(stage)


def run(path: Path, task: Task) -> AnyArray:
    return run_file(path, {"input": task.test.inputs}, Kernels.EXACT)[0]


def test_the_ladder_mends_what_a_naive_quantizer_breaks_and_a_second_climb_computes_nothing(
    uneven: Path, task: Task, tmp_path: Path
) -> None:
    cache = Cache(tmp_path / "cache")
    findings = climb(uneven, tmp_path / "q.onnx", task, cache)
    exact = float(str(findings["float_accuracy"]))
    assert exact - float(str(findings["accuracy_naive"])) > 0.05
    found = top1_accuracy(run(tmp_path / "q.onnx", task), task.test.labels)
    assert exact - found <= 0.005
    assert found == pytest.approx(float(str(findings[f"accuracy_{findings['rung']}"])), abs=1e-6)
    assert "equalize > " in str(findings["passes"]), "nothing else brings the channels together"
    made = {row: row.stat().st_mtime_ns for row in (tmp_path / "cache").rglob("*") if row.is_file()}
    assert climb(uneven, tmp_path / "again.onnx", task, cache) == findings
    assert made == {
        row: row.stat().st_mtime_ns for row in (tmp_path / "cache").rglob("*") if row.is_file()
    }
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "q.onnx").read_bytes()


def test_a_model_without_weights_ends_in_one_error_and_no_file(task: Task, tmp_path: Path) -> None:
    export_onnx(nn.Sequential(nn.ReLU(), nn.Flatten()), task.input_shape, tmp_path / "relu.onnx")
    with pytest.raises(ModelError, match=r"no rung of the ladder can be done .*nothing was quant"):
        climb(tmp_path / "relu.onnx", tmp_path / "q.onnx", task)
    assert not (tmp_path / "q.onnx").exists()


def test_a_recipe_can_hold_the_ladder(task: Task, cache: Cache) -> None:
    recipe = Recipe(name="ladder", file_passes={ModelFormat.ONNX: (QuantizeVerified(),)})
    builder = Builder(task, cache, lambda _: None, SHIPPED.extend([recipe]))
    built = builder.build(Choice("ladder", ModelFormat.ONNX))
    assert built.passes[-1].name == "quantize_verified"
    assert built.passes[-1].findings["rung"] == "naive"
    assert built.quality.exact is not None
    assert built.quality.base is not None
    assert built.quality.base - built.quality.exact <= 0.005


def test_the_last_rung_trains_the_network_with_its_quantizer(task: Task, cache: Cache) -> None:
    bench = TaskBench(Builder(task, cache, lambda _: None), ModelFormat.ONNX)
    plain = bench.measure(Setting(QuantizeStatic()))
    trained = bench.measure(Setting(QuantizeStatic(), is_trained=True))
    assert trained.accuracy >= bench.measure_float() - 0.02
    assert trained.seconds > plain.seconds
    ranking = bench.rank(Setting(QuantizeStatic(is_per_channel=False)))
    assert sorted(ranking) == ["node_conv2d", "node_linear", "node_linear_1"]


def test_the_command_writes_the_file_and_what_every_rung_gave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "task.py").write_text(
        "from support.compressor_rig import a_task\nTASK = a_task()\n"
    )
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    options = ["rescue", str(tmp_path / "task.py"), "--out", str(tmp_path), "--format", "onnx"]
    assert main([*options, "--max-drop", "1"]) == 0
    report = RescueReport.model_validate(json.loads((tmp_path / "rescue.json").read_text()))
    row = report.formats[0]
    assert (row.enough, row.file) == ("naive", "bars.int8.onnx")
    assert (tmp_path / "bars.int8.onnx").stat().st_size == row.settings[0].size_bytes
    assert "enough: naive, within 1 points" in capsys.readouterr().out
    assert main([*options, "--max-drop", "200"]) == 2
