"""A file made of a network that was trained rounded computes what was trained, on its own runtime."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from support.compressor_rig import a_task
from support.mobile_rig import build_mobile
from trimtab_compressor.agreement import top1_accuracy
from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.export.table import EXPORTERS
from trimtab_compressor.passes.quantize_aware import quantize_aware
from trimtab_compressor.passes.stage import FileStage, Findings, Network, NetworkStage
from trimtab_compressor.passes.table import FILE_PASSES
from trimtab_compressor.passes.train import train
from trimtab_compressor.runtimes.port import Kernels, fit_samples, run_all
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.specs.quantization import QuantizeStatic
from trimtab_compressor.specs.quantize_aware import QuantizeAware
from trimtab_compressor.specs.training import Train
from trimtab_compressor.task import Task
from trimtab_protocol.manifest import ModelFormat

ONNX, TFLITE = ModelFormat.ONNX, ModelFormat.TFLITE
SCHEMES: dict[str, dict[str, Any]] = {
    "asymmetric": {},
    "reduced": {"is_range_reduced": True},
    "per_tensor": {"is_per_channel": False},
    "symmetric": {"is_symmetric": True},
    "unsigned": {"is_weight_unsigned": True},
}


@pytest.fixture(scope="module")
def task() -> Task:
    torch.set_num_threads(1)
    return a_task(build_model=build_mobile)


@pytest.fixture(scope="module")
def trained(task: Task) -> dict[str, Network]:
    """One network per scheme."""
    torch.manual_seed(0)
    base = build_mobile()
    base = train(NetworkStage(spec=Train(), task=task, model=base, base=base)).module
    made = {}
    for name, scheme in SCHEMES.items():
        spec = QuantizeAware(epochs=1, **scheme)
        stage = NetworkStage(spec=spec, task=task, model=copy.deepcopy(base), base=base)
        made[name] = quantize_aware(stage)
    return made


def quantize(
    task: Task, made: Network, folder: Path, model_format: ModelFormat, spec: QuantizeStatic
) -> tuple[Path, Findings]:
    source = folder / f"net.{model_format.value}"
    target = folder / f"quantized.{model_format.value}"
    EXPORTERS[model_format](made.module, task.input_shape, source)
    samples = fit_samples(open_model(source, Kernels.EXACT).io, task.calibration, what="samples")
    stage = FileStage(spec, source, target, samples, ranges=made.ranges)
    return target, FILE_PASSES[(spec.pass_name, model_format)](stage)


def outputs_of(path: Path, task: Task) -> tuple[AnyArray, float]:
    """Outputs and the step of their integers."""
    runner = open_model(path, Kernels.EXACT)
    samples = fit_samples(runner.io, task.test.inputs, what="samples")
    step = runner.output_step()
    assert step is not None
    return run_all(runner, samples)[runner.io.outputs[0].name], step


@pytest.mark.parametrize(
    ("scheme", "model_format"),
    [*((name, ONNX) for name in SCHEMES), ("asymmetric", TFLITE)],
    ids=str,
)
def test_every_range_reaches_the_file_and_its_accuracy_is_that_of_training(
    scheme: str,
    model_format: ModelFormat,
    task: Task,
    trained: dict[str, Network],
    tmp_path: Path,
) -> None:
    made = trained[scheme]
    spec = QuantizeStatic(**SCHEMES[scheme])
    path, findings = quantize(task, made, tmp_path, model_format, spec)
    assert findings["learned_ranges_used"] == findings["learned_ranges"] == len(made.ranges)
    outputs, step = outputs_of(path, task)
    last = made.ranges[-1]
    assert step == pytest.approx((last.high - last.low) / (254 if spec.is_symmetric else 255))
    expected = float(made.findings["fake_quantized_accuracy"] or 0)
    assert top1_accuracy(outputs, task.test.labels) == pytest.approx(expected, abs=0.01)


def test_both_formats_give_the_same_integers(
    task: Task, trained: dict[str, Network], tmp_path: Path
) -> None:
    found = [
        outputs_of(quantize(task, trained["asymmetric"], tmp_path, kind, QuantizeStatic())[0], task)
        for kind in (ONNX, TFLITE)
    ]
    steps = np.abs(found[0][0] - found[1][0]) / found[0][1]
    assert float((steps > 0.5).mean()) < 0.02, "one step apart at most rarely"


def test_the_range_of_a_tensor_is_what_was_learned_not_what_calibration_finds(
    task: Task, trained: dict[str, Network], tmp_path: Path
) -> None:
    path, _ = quantize(task, trained["asymmetric"], tmp_path, ONNX, QuantizeStatic())
    graph = onnx.load(path).graph
    constants = {row.name: onnx.numpy_helper.to_array(row) for row in graph.initializer}
    steps = {
        float(constants[row.input[1]])
        for row in graph.node
        if row.op_type == "QuantizeLinear" and constants[row.input[1]].ndim == 0
    }
    learned = {(row.high - row.low) / 255 for row in trained["asymmetric"].ranges}
    assert all(any(step == pytest.approx(row) for row in learned) for step in steps)


def test_ranges_of_a_network_that_was_changed_since_are_left_alone(
    task: Task, trained: dict[str, Network], tmp_path: Path
) -> None:
    made = trained["asymmetric"]
    changed = copy.deepcopy(made.module)
    with torch.no_grad():
        changed.get_submodule("0").weight.mul_(1.5)  # type: ignore[operator]
    path, findings = quantize(
        task, Network(changed, ranges=made.ranges), tmp_path, ONNX, QuantizeStatic()
    )
    assert findings["learned_ranges"] == len(made.ranges)
    assert findings["learned_ranges_used"] == 1, "that of the input"
    assert path.is_file()
