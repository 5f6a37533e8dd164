"""What a user gives: a network, its data and how to train it.

A task is a Python file that defines `TASK = Task(...)`. Rules:
    1. Everything is checked when the task is built, so a wrong array is found before an hour of
       training, and the message names the field and the remedy.
    2. Nothing here imports torch; `build_model` does when it is called.
    3. What can be known from the data need not be said: shapes, classes, calibration samples.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from trimtab_compressor.arrays import AnyArray, FloatArray, digest_array
from trimtab_compressor.evidence import Evidence
from trimtab_compressor.specs.base import Need
from trimtab_compressor.task_data import Samples, collect_samples
from trimtab_compressor.task_model import FixedWidth, read_builder
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import ModelFormat

if TYPE_CHECKING:
    from torch import nn

__all__ = ["STUDENT_WIDTH", "Samples", "Task", "Training"]

CALIBRATION_SAMPLES = 300
"""100 to 500 show the ranges of activations; more only take longer."""

_FROM_TRAINING: FloatArray = np.empty(0, np.float32)
"""Stands for calibration samples that were not given."""

STUDENT_WIDTH = -1.0
"""Stands for a width where a network was made by `build_student`."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""As trimtab_protocol.base.Name."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train. One-cycle learning rate, AdamW.

    Args:
        epochs: Of the base network.
        fine_tune_epochs: After pruning.
        distill_epochs: Of a student, new or pruned; a teacher pays off late.
        batch: Samples per step.
        learning_rate: Peak of the cycle.
        fine_tune_learning_rate: Peak of the cycle when fine-tuning.
        weight_decay: Of AdamW.
        seed: Of the initial weights and of the order of the samples.
    """

    epochs: int = 3
    fine_tune_epochs: int = 1
    distill_epochs: int = 5
    batch: int = 128
    learning_rate: float = 8e-3
    fine_tune_learning_rate: float = 3e-3
    weight_decay: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        for name in (
            "epochs",
            "distill_epochs",
            "batch",
            "learning_rate",
            "fine_tune_learning_rate",
        ):
            if not getattr(self, name) > 0:
                raise ConfigError(f"training.{name} is {getattr(self, name)}: give a value above 0")
        if self.fine_tune_epochs < 0 or self.weight_decay < 0 or self.seed < 0:
            raise ConfigError(
                "training: fine_tune_epochs, weight_decay and seed cannot be negative"
            )


@dataclass(frozen=True, kw_only=True)
class Task:
    """A model to compress, with all that is needed to train and to judge it.

    Args:
        name: Lowercase, such as "mnist-cnn"; the default name of its artifacts.
        build_model: Gives a new network; `width` scales its channels (1.0 is the base). Its output is
            (n, classes) logits. A function without arguments, or a torch.nn.Module (Lightning and timm
            models are such), has one width only. Training begins with the weights that it has.
        train: What to train on: Samples, a pair of arrays, or a torch Dataset or DataLoader of
            (input, label), which is read once.
        test: What to judge on, likewise; never trained on.
        input_shape: Of one sample, without the batch: (1, 28, 28); by default that of the data.
        classes: How many classes there are; by default one more than the largest label.
        calibration: Inputs that show the ranges of activations, (n, *input_shape), 100 to 500 of them;
            by default the first 300 training inputs.
        training: How to train.
        build_student: Gives a new, untrained network of another design for distillation, with the same
            inputs and outputs.
        ignored_layers: Names of layers (as in `named_modules`) that pruning must leave alone. The
            last layer that has `classes` outputs is always left alone.
        metric: What accuracy means here; only "top1_accuracy" so far.
        source_sha256: Digest of the task's file; filled in by `load_task`.
    """

    name: str
    build_model: Callable[[float], nn.Module]
    train: Samples
    test: Samples
    input_shape: tuple[int, ...] = ()
    classes: int = 0
    calibration: FloatArray = field(default_factory=lambda: _FROM_TRAINING)
    training: Training = field(default_factory=Training)
    build_student: Callable[[], nn.Module] | None = None
    ignored_layers: tuple[str, ...] = ()
    metric: str = "top1_accuracy"
    source_sha256: str = ""

    def __post_init__(self) -> None:
        """Refuse arrays that cannot belong together."""
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"task name '{self.name}' cannot name artifacts; use lowercase letters, digits, "
                "'.', '_' and '-', at most 64"
            )
        self._complete()
        if self.classes < 2:
            raise ConfigError(f"task {self.name}: classes is {self.classes}, at least 2 are needed")
        if self.metric != "top1_accuracy":
            raise ConfigError(
                f"task {self.name}: metric '{self.metric}' is unknown; use 'top1_accuracy'"
            )
        for where, samples in (("train", self.train), ("test", self.test)):
            self._check_inputs(f"{where}.inputs", samples.inputs)
            self._check_labels(f"{where}.labels", samples)
        self._check_inputs("calibration", self.calibration)

    def _complete(self) -> None:
        """Bring what was given into one form, and fill in what the data say."""
        where = f"task {self.name}"
        changes: dict[str, object] = {
            "build_model": read_builder(self.build_model, where),
            "train": collect_samples(self.train, f"{where}: train"),
            "test": collect_samples(self.test, f"{where}: test"),
        }
        for name, value in changes.items():
            object.__setattr__(self, name, value)
        if not self.input_shape:
            object.__setattr__(self, "input_shape", np.shape(self.train.inputs)[1:])
        if not self.classes:
            labels = (samples.labels for samples in (self.train, self.test))
            object.__setattr__(self, "classes", max(map(_largest, labels)) + 1)
        if self.calibration is _FROM_TRAINING:
            few = self.train.inputs[:CALIBRATION_SAMPLES]
            object.__setattr__(self, "calibration", few)

    def build(self, width: float) -> nn.Module:
        """A new, untrained network of a width, or the student's if it is STUDENT_WIDTH.

        Raises:
            ConfigError: There is no `build_student`. Anything else that the task's code raises.
        """
        if width != STUDENT_WIDTH:
            return self.build_model(width)
        if self.build_student is None:
            raise ConfigError(
                f"task {self.name} has no build_student; give it one, or leave out is_task_student"
            )
        return self.build_student()

    def _check_inputs(self, where: str, array: AnyArray) -> None:
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            found = getattr(array, "dtype", type(array).__name__)
            raise ConfigError(
                f"task {self.name}: {where} must be a float32 array, found {found}; "
                "convert it with .astype(np.float32)"
            )
        if len(array) == 0:
            raise ConfigError(f"task {self.name}: {where} is empty; give at least one sample")
        if array.shape[1:] != self.input_shape:
            raise ConfigError(
                f"task {self.name}: {where} has samples of shape {list(array.shape[1:])}, "
                f"input_shape says {list(self.input_shape)}; reshape one of them"
            )
        if not np.isfinite(array).all():
            raise ConfigError(
                f"task {self.name}: {where} holds NaN or infinite values; clean the data first"
            )

    def _check_labels(self, where: str, samples: Samples) -> None:
        labels = samples.labels
        if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
            raise ConfigError(f"task {self.name}: {where} must be an array of integers")
        if labels.shape != (len(samples.inputs),):
            raise ConfigError(
                f"task {self.name}: {where} has shape {list(labels.shape)} for "
                f"{len(samples.inputs)} inputs; give one label per input"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= self.classes:
            raise ConfigError(
                f"task {self.name}: {where} runs from {low} to {high}, classes={self.classes} "
                f"allows 0 to {self.classes - 1}; correct the labels or the number of classes"
            )

    @property
    def has(self) -> frozenset[Need]:
        """What passes can get from it."""
        lacking = set()
        if isinstance(self.build_model, FixedWidth):
            lacking.add(Need.WIDTHS)
        if self.build_student is None:
            lacking.add(Need.STUDENT)
        return frozenset(Need) - lacking

    @property
    def seed(self) -> int:
        """Of its training."""
        return self.training.seed

    def evidence_in(self, model_format: ModelFormat) -> Evidence:
        """The same for every format."""
        del model_format
        return self.evidence

    @cached_property
    def evidence(self) -> Evidence:
        """What its files are calibrated with and judged on."""
        return Evidence(self.calibration, self.test.inputs, self.test.labels, self.data_sha256)

    @cached_property
    def data_sha256(self) -> dict[str, str]:
        """Digests of the data, by role."""
        return {
            "train": digest_array(self.train.inputs),
            "train_labels": digest_array(self.train.labels),
            "test": digest_array(self.test.inputs),
            "test_labels": digest_array(self.test.labels),
            "calibration": digest_array(self.calibration),
        }


def _largest(labels: AnyArray) -> int:
    """The largest label, or -1 where there is none or none can be."""
    kind = getattr(getattr(labels, "dtype", None), "kind", "")
    return int(labels.max()) if kind in ("i", "u") and labels.size else -1
