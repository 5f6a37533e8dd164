"""Distillation by answers: soft, hard and decoupled.

soft:      (1 - w) · CE(student, labels) + w · T² · KL(softmax(teacher / T) ‖ softmax(student / T))
hard:      (1 - w) · CE(student, labels) + w · CE(student, argmax teacher)
decoupled: CE(student, labels) + T² · (α · TCKD + warm-up · β · NCKD)

The formulas and their sources are in `distillation_losses`, the teachers in `distill_teachers`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trimtab_compressor.network import new_network
from trimtab_compressor.passes.distill_teachers import answer_as_one
from trimtab_compressor.passes.distillation_losses import dkd_loss, hard_loss, soft_loss, warm_up
from trimtab_compressor.passes.stage import Findings, Network, NetworkStage
from trimtab_compressor.passes.train import label_loss, schedule
from trimtab_compressor.passes.training_loop import Loss, run_epochs
from trimtab_compressor.specs.distillation import (
    Distill,
    DistillDecoupled,
    DistillHard,
    Lesson,
)
from trimtab_compressor.task import STUDENT_WIDTH, Task


def distill(stage: NetworkStage[Distill]) -> Network:
    """Teach with softened answers and the labels.

    Raises:
        ConfigError: The student cannot be made, or a teacher cannot teach.
        ModelError: Training diverged.
    """
    spec = stage.spec
    answers = answer_as_one(stage, spec, spec.temperature)
    return _teach(stage, answers, mix_soft(stage.task, answers, spec.temperature, spec.soft_weight))


def distill_hard(stage: NetworkStage[DistillHard]) -> Network:
    """Teach with the teacher's first choice and the labels.

    Raises:
        ConfigError: The student cannot be made, or a teacher cannot teach.
        ModelError: Training diverged.
    """
    weight, labels = stage.spec.teacher_weight, label_loss(stage.task)
    answers = answer_as_one(stage, stage.spec, 1.0)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        taught = hard_loss(logits, answers[rows])
        return weight * taught + (1 - weight) * labels(logits, rows)

    return _teach(stage, answers, loss)


def distill_decoupled(stage: NetworkStage[DistillDecoupled]) -> Network:
    """Teach with the labels and the two parts of the softened answers.

    Raises:
        ConfigError: The student cannot be made, or a teacher cannot teach.
        ModelError: Training diverged.
    """
    answers = answer_as_one(stage, stage.spec, stage.spec.temperature)
    return _teach(stage, answers, DecoupledLoss(stage.spec, stage.task, answers))


class DecoupledLoss:
    """Labels and DKD; knows how far the epochs are by the samples that it has seen.

    Args:
        spec: The weights.
        task: The labels.
        answers: The teachers' logits, (n, classes).
    """

    def __init__(self, spec: DistillDecoupled, task: Task, answers: Tensor) -> None:
        self._spec = spec
        self._answers = answers
        self._labels = torch.from_numpy(task.train.labels).long()
        self._hard = label_loss(task)
        self._seen = 0

    def __call__(self, logits: Tensor, rows: Tensor) -> Tensor:
        """(logits (b, classes), row indices (b,)) -> scalar."""
        spec = self._spec
        epoch = self._seen / len(self._answers)
        self._seen += len(rows)
        taught = dkd_loss(
            logits,
            self._answers[rows],
            self._labels[rows],
            temperature=spec.temperature,
            alpha=spec.alpha,
            beta=spec.beta * warm_up(epoch, spec.warm_up_epochs),
        )
        return self._hard(logits, rows) + taught


def mix_soft(task: Task, answers: Tensor, temperature: float, weight: float) -> Loss:
    """The soft loss and the labels'.

    Args:
        task: The labels.
        answers: The teachers' logits for the training data, (n, classes).
        temperature: See `soft_loss`.
        weight: Of the soft loss, 0 to 1.
    """
    labels = label_loss(task)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        soft = soft_loss(logits, answers[rows], temperature)
        return weight * soft + (1 - weight) * labels(logits, rows)

    return loss


def choose_student(stage: NetworkStage[Any], spec: Lesson) -> tuple[nn.Module, float]:
    """Who is taught, and the width that a checkpoint of it needs.

    Raises:
        ConfigError: The task cannot make that student.
    """
    if spec.is_task_student:
        return new_network(stage.task, STUDENT_WIDTH), STUDENT_WIDTH
    if spec.width is not None:
        return new_network(stage.task, spec.width), spec.width
    return stage.model, stage.width


def note_teacher(task: Task, answers: Tensor) -> Findings:
    """How good the teachers are together, on the data that they teach with."""
    labels = torch.from_numpy(task.train.labels)
    right = float((answers.argmax(dim=1) == labels).double().mean())
    return {"teacher_train_accuracy": round(right, 4)}


def _teach(stage: NetworkStage[Any], answers: Tensor, loss: Loss) -> Network:
    task, training = stage.task, stage.task.training
    student, width = choose_student(stage, stage.spec)
    plan = schedule(training, training.distill_epochs, training.learning_rate)
    run_epochs(student, task.train.inputs, loss, plan)
    return Network(student, width, note_teacher(task, answers))
