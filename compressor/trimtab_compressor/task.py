"""What a user gives: a network, its data and how to train it.

A task is a Python file that defines `TASK = Task(...)`. Rules:
    1. Everything is checked when the task is built, so a wrong array is found before an hour of
       training, and the message names the field and the remedy.
    2. Nothing here imports torch; `build_model` does when it is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from trimtab_compressor.arrays import AnyArray, FloatArray, IntArray, digest_array
from trimtab_compressor.evidence import Evidence
from trimtab_compressor.specs.base import Need
from trimtab_protocol.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""As trimtab_protocol.base.Name."""


@dataclass(frozen=True)
class Samples:
    """Inputs with their labels.

    Args:
        inputs: float32, (n, *input_shape), normalised as the network expects them.
        labels: Integers in [0, classes), (n,).
    """

    inputs: FloatArray
    labels: IntArray


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
        build_model: Gives a new, untrained network; `width` scales its channels (1.0 is the base).
            Its output is (n, classes) logits.
        input_shape: Of one sample, without the batch: (1, 28, 28).
        classes: How many classes there are.
        train: What to train on.
        test: What to judge on; never trained on.
        calibration: Inputs that show the ranges of activations, (n, *input_shape); 100 to 500
            training samples are enough.
        training: How to train.
        ignored_layers: Names of layers (as in `named_modules`) that pruning must leave alone. The
            last layer that has `classes` outputs is always left alone.
        metric: What accuracy means here; only "top1_accuracy" so far.
        source_sha256: Digest of the task's file; filled in by `load_task`.
    """

    name: str
    build_model: Callable[[float], nn.Module]
    input_shape: tuple[int, ...]
    classes: int
    train: Samples
    test: Samples
    calibration: FloatArray
    training: Training = field(default_factory=Training)
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
        if self.classes < 2:
            raise ConfigError(f"task {self.name}: classes is {self.classes}, at least 2 are needed")
        if self.metric != "top1_accuracy":
            raise ConfigError(
                f"task {self.name}: metric '{self.metric}' is unknown; use 'top1_accuracy'"
            )
        if not callable(self.build_model):
            raise ConfigError(f"task {self.name}: build_model must be a function of the width")
        for where, samples in (("train", self.train), ("test", self.test)):
            self._check_inputs(f"{where}.inputs", samples.inputs)
            self._check_labels(f"{where}.labels", samples)
        self._check_inputs("calibration", self.calibration)

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
        """What passes can get from it: everything."""
        return frozenset(Need)

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
