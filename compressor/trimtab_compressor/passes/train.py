"""Train the base network on the task's labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trimtab_compressor.passes.specs import Train
from trimtab_compressor.passes.stage import TorchStage
from trimtab_compressor.passes.training_loop import Loss, Schedule, run_epochs
from trimtab_compressor.task import Task, Training


def train(stage: TorchStage[Train]) -> nn.Module:
    """Train the network that `build_model` gave.

    Raises:
        ModelError: Training diverged.
    """
    run_epochs(
        stage.model, stage.task.train.inputs, label_loss(stage.task), full(stage.task.training)
    )
    return stage.model


def label_loss(task: Task) -> Loss:
    """Cross-entropy against the labels."""
    labels = torch.from_numpy(task.train.labels).long()

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        return cross_entropy(logits, labels[rows])

    return loss


def full(training: Training) -> Schedule:
    """The schedule of a network that starts from nothing."""
    return Schedule(
        epochs=training.epochs,
        batch=training.batch,
        peak_learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        seed=training.seed,
    )


def fine_tuning(training: Training) -> Schedule:
    """The schedule of a network that has learned before."""
    return Schedule(
        epochs=training.fine_tune_epochs,
        batch=training.batch,
        peak_learning_rate=training.fine_tune_learning_rate,
        weight_decay=training.weight_decay,
        seed=training.seed,
    )
