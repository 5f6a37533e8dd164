"""A tiny task that learns in a second, tiny models, and a control plane that answers from a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from support.factories import NOW, a_measurement
from trimtab_compressor.build import Built
from trimtab_compressor.passes.stage import NetworkStage
from trimtab_compressor.passes.train import train
from trimtab_compressor.recipes import BASE_RECIPE, Choice
from trimtab_compressor.specs.training import Train
from trimtab_compressor.task import Samples, Task, Training
from trimtab_protocol.api import Artifact, Trial, TrialSpec, TrialState
from trimtab_protocol.errors import ErrorCode, ModelError
from trimtab_protocol.manifest import ModelFormat, PassRecord, Quality, SignedManifest
from trimtab_protocol.reading import Reading
from trimtab_protocol.rollout import Rollout, RolloutSpec, RolloutState
from trimtab_protocol.signing import read_manifest

CLASSES = 3
INPUT_SHAPE = (1, 8, 8)


def build_tiny(width: float = 1.0) -> nn.Module:
    """Conv, dense, dense: wide enough that half of it can go in steps of 8."""
    filters, hidden = max(8, round(16 * width)), max(8, round(32 * width))
    return nn.Sequential(
        nn.Conv2d(1, filters, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(filters * 9, hidden),
        nn.ReLU(),
        nn.Linear(hidden, CLASSES),
    )


def draw_samples(count: int, seed: int) -> Samples:
    """Noise with a bright bar at the top, in the middle or at the bottom."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    inputs = random.normal(0, 0.2, (count, *INPUT_SHAPE)).astype(np.float32)
    for row, label in enumerate(labels):
        inputs[row, 0, 1 + 2 * label : 3 + 2 * label] += 1.0
    return Samples(inputs=inputs, labels=labels.astype(np.int64))


def a_task(**changes: object) -> Task:
    """A task that reaches full accuracy in a second on one thread."""
    train = draw_samples(480, seed=1)
    given: dict[str, object] = {
        "name": "bars",
        "build_model": build_tiny,
        "input_shape": INPUT_SHAPE,
        "classes": CLASSES,
        "train": train,
        "test": draw_samples(120, seed=2),
        "calibration": train.inputs[:64],
        "training": Training(epochs=4, distill_epochs=4, batch=32, learning_rate=5e-3),
        "source_sha256": "0" * 64,
    }
    return Task(**{**given, **changes})  # type: ignore[arg-type]


def trained_tiny(task: Task) -> nn.Module:
    """A trained base network."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_tiny()
    return train(NetworkStage(spec=Train(), task=task, model=model, base=model)).module


def write_dense_onnx(path: Path, weights: NDArray[np.float32], name: str = "x") -> Path:
    """An ONNX file that multiplies an input (batch, k) by weights (k, m)."""
    rows, columns = weights.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", [name, "w"], ["y"])],
        "dense",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", rows])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", columns])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


class FakeMaker:
    """Makes a real, different little ONNX file for every choice, with the accuracy of a table."""

    def __init__(self, folder: Path, exact: Mapping[str, float] | None = None) -> None:
        self._folder = folder
        self._exact = dict(exact or {})
        self.broken: set[str] = set()
        self.built: list[Choice] = []

    def build(self, choice: Choice) -> Built:
        self.built.append(choice)
        if choice.recipe in self.broken:
            raise ModelError("nothing was quantized", code=ErrorCode.MODEL_UNREADABLE)
        seed = sum(choice.recipe.encode())
        weights = np.random.default_rng(seed).normal(size=(64, CLASSES)).astype(np.float32)
        path = write_dense_onnx(self._folder / f"{choice.recipe}.onnx", weights)
        exact = self._exact.get(choice.recipe, 0.99)
        return Built(
            choice=choice,
            path=path,
            size_bytes=path.stat().st_size,
            quality=Quality(samples=100, exact=exact, on_host=exact, base=0.99),
            passes=(PassRecord(name="train"),),
            base_sha256=None if choice.recipe == BASE_RECIPE else "1" * 64,
            seconds=0.0,
        )

    def count_steps(self, choices: Sequence[Choice]) -> int:
        return len(choices)

    def tools(self, model_format: ModelFormat) -> dict[str, str]:
        return {"fake": model_format.value}


class FakeControlPlane:
    """Answers trials with the p90 of a table: by recipe, or by (recipe, class); lists are used up."""

    def __init__(self, p90_ms: Mapping[object, Reading | Sequence[Reading] | ErrorCode]) -> None:
        self._p90_ms = {
            key: list(value)
            if isinstance(value, Sequence) and not isinstance(value, str)
            else value
            for key, value in p90_ms.items()
        }
        self.artifacts: list[Artifact] = []
        self.trials: list[tuple[str, str]] = []
        self.rollouts: list[RolloutSpec] = []
        self.rollout_state = RolloutState.COMMITTED

    def list_artifacts(self, name: str) -> list[Artifact]:
        return [row for row in self.artifacts if row.ref.name == name]

    def push(self, signed: SignedManifest, payload: bytes) -> Artifact:
        manifest = read_manifest(signed)
        assert manifest.payload.length_bytes == len(payload)
        artifact = Artifact(ref=manifest.ref(), signed=signed, created_at=NOW)
        self.artifacts.append(artifact)
        return artifact

    def run_trial(self, spec: TrialSpec) -> Trial:
        artifact = next(row for row in self.artifacts if row.ref.version == spec.version)
        recipe = read_manifest(artifact.signed).lineage.recipe
        self.trials.append((recipe, spec.device_class))
        answer = self._answer(recipe, spec.device_class)
        measured = isinstance(answer, Reading)
        return Trial(
            trial_id=f"trial-{len(self.trials)}",
            spec=spec,
            artifact=artifact.ref,
            state=TrialState.MEASURED if measured else TrialState.FAILED,
            measurement=a_measurement(
                artifact=artifact.ref, device_class=spec.device_class, p90_ms=answer, size_bytes=999
            )
            if isinstance(answer, Reading)
            else None,
            error_code=None if isinstance(answer, Reading) else answer,
            detail="" if measured else "the child was killed",
            created_at=NOW,
        )

    def _answer(self, recipe: str, device_class: str) -> Reading | ErrorCode:
        found = self._p90_ms.get((recipe, device_class), self._p90_ms.get(recipe))
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        assert isinstance(found, Reading | ErrorCode), f"no answer for {recipe} on {device_class}"
        return found

    def run_rollout(self, spec: RolloutSpec, max_wait_s: float) -> Rollout:
        assert max_wait_s > 0
        self.rollouts.append(spec)
        artifact = next(row for row in self.artifacts if row.ref.version == spec.version)
        return Rollout(
            rollout_id="rollout-1",
            spec=spec,
            artifact=artifact.ref,
            state=self.rollout_state,
            stage=1,
            created_at=NOW,
        )
