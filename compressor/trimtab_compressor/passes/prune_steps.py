"""Prune in steps: cut, fine-tune, measure, and keep the last step that may be kept.

Rules:
    1. A step works on a copy. What was good before it is the result if the step fails or loses too
       much, so a step that goes wrong costs its time and nothing else.
    2. Accuracy is that of the network on the task's test samples; the drop is to the base network, in
       points. The exported file is judged again, by its runtime, as every candidate is.
    3. A pass that may not keep even its first step ends in an error: a network that was not pruned is
       never called one that was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from trimtab_compressor.agreement import top1_accuracy
from trimtab_compressor.macs import count_macs, count_parameters
from trimtab_compressor.passes.distill import mix_soft
from trimtab_compressor.passes.stage import Findings, NetworkStage
from trimtab_compressor.passes.train import label_loss, schedule
from trimtab_compressor.passes.training_loop import AfterStep, Loss, predict, run_epochs
from trimtab_compressor.specs.pruning import Prune
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ErrorCode, ModelError

PruneT = TypeVar("PruneT", bound=Prune)

TakeStep = Callable[[nn.Module, int], str | None]
"""(network to change in place, step from 1) -> what was done, or None if nothing could be."""


@dataclass(frozen=True)
class Walked:
    """Where the steps led.

    Args:
        module: The network after the last step that was kept.
        kept: How many steps that were, at least 1.
        findings: Accuracies of the steps, and why it ended there.
    """

    module: nn.Module
    kept: int
    findings: Findings


def walk_steps(stage: NetworkStage[PruneT], steps: int, take_step: TakeStep) -> Walked:
    """Take steps as long as they may be kept.

    Args:
        stage: `model` is not changed; `base` is what the drop is measured against.
        steps: How many at most.
        take_step: Prunes and fine-tunes.

    Raises:
        ModelError: The first step failed or lost more than `max_drop`, or no step did anything.
    """
    spec, task, good = stage.spec, stage.task, stage.model
    base_accuracy = accuracy_on_test(stage.base, task)
    log: list[str] = []
    kept, stopped, kept_accuracy = 0, "all steps were taken", base_accuracy
    for step in range(1, steps + 1):
        model = copy.deepcopy(good)
        try:
            done = take_step(model, step)
        except ModelError as error:
            if kept == 0:
                raise
            stopped = f"step {step} failed: {error.message}"
            break
        if done is None:
            continue
        accuracy = accuracy_on_test(model, task)
        drop = 100 * (base_accuracy - accuracy)
        log.append(f"{done}: {accuracy:.4f}")
        if spec.max_drop is not None and drop > spec.max_drop:
            stopped = f"{done} loses {drop:.2f} points, allowed are {spec.max_drop:g}"
            break
        good, kept, kept_accuracy = model, step, accuracy
    _check_kept(spec, kept, log, stopped)
    return Walked(
        good,
        kept,
        {
            "base_accuracy": round(base_accuracy, 6),
            "accuracy": round(kept_accuracy, 6),
            "accuracy_by_step": "; ".join(log),
            "steps_kept": kept,
            "stopped": stopped,
        },
    )


def _check_kept(spec: Prune, kept: int, log: list[str], stopped: str) -> None:
    if kept:
        return
    if not log:
        raise ModelError(
            f"{spec.pass_name} removed nothing: every layer is left out or too narrow; use a higher "
            "ratio, or a smaller round_to or min_layer_weights",
            code=ErrorCode.MODEL_UNREADABLE,
        )
    raise ModelError(
        f"{spec.pass_name}: not even the first step may be kept: {stopped}; allow a larger max_drop, "
        "take smaller steps, or fine-tune for more epochs",
        code=ErrorCode.MODEL_GOLDEN,
    )


def accuracy_on_test(model: nn.Module, task: Task) -> float:
    """Share of the test samples that the network answers as labelled."""
    return top1_accuracy(predict(model, task.test.inputs).numpy(), task.test.labels)


def tuning_loss(stage: NetworkStage[PruneT]) -> Loss:
    """Cross-entropy against the labels, mixed with the base's soft answers if the spec says so."""
    spec, task = stage.spec, stage.task
    if spec.soft_weight == 0:
        return label_loss(task)
    answers = predict(stage.base, task.train.inputs)
    return mix_soft(task, answers, spec.temperature, spec.soft_weight)


def fine_tune(
    model: nn.Module, task: Task, loss: Loss, after_step: AfterStep | None = None
) -> None:
    """Train for the task's `fine_tune_epochs`.

    Raises:
        ModelError: Training diverged.
    """
    training = task.training
    plan = schedule(training, training.fine_tune_epochs, training.fine_tune_learning_rate)
    run_epochs(model, task.train.inputs, loss, plan, after_step=after_step)


def compare_counts(before: nn.Module, after: nn.Module, task: Task) -> Findings:
    """Parameters and multiply-accumulates before and after."""
    return {
        "parameters_before": count_parameters(before),
        "parameters": count_parameters(after),
        "macs_before": count_macs(before, task.input_shape),
        "macs": count_macs(after, task.input_shape),
    }
