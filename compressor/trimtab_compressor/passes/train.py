"""Train the base network on the task's labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trimtab_compressor.network import new_network
from trimtab_compressor.passes.stage import Network, NetworkStage
from trimtab_compressor.passes.training_loop import Loss, Schedule, run_epochs
from trimtab_compressor.specs.training import Train
from trimtab_compressor.task import Task, Training


def train(stage: NetworkStage[Train]) -> Network:
    """Train the network that `build_model` gave.

    Raises:
        ModelError: Training diverged.
    """
    task, training = stage.task, stage.task.training
    plan = schedule(training, training.epochs, training.learning_rate)
    run_epochs(stage.model, task.train.inputs, label_loss(task), plan)
    return Network(stage.model, stage.width)


def train_base(task: Task, width: float) -> nn.Module:
    """The task's network of a width, trained as its base is.

    Raises:
        ConfigError: `build_model` cannot make that width.
        ModelError: Training diverged.
    """
    model = new_network(task, width)
    return train(NetworkStage(spec=Train(), task=task, model=model, base=model, width=width)).module


def label_loss(task: Task) -> Loss:
    """Cross-entropy against the labels."""
    labels = torch.from_numpy(task.train.labels).long()

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        return cross_entropy(logits, labels[rows])

    return loss


def schedule(training: Training, epochs: int, peak_learning_rate: float) -> Schedule:
    """The task's settings with these epochs and this speed."""
    return Schedule(
        epochs=epochs,
        batch=training.batch,
        peak_learning_rate=peak_learning_rate,
        weight_decay=training.weight_decay,
        seed=training.seed,
    )
