"""Transfer by fine-tuning: the source's layers go on learning, from the head down.

Gradual unfreezing: stage k (0 is the head) is trained from epoch k · epochs_per_stage on. Layer-wise
rates: stage k learns at rate · decay^k. What lies near the inputs serves many tasks, and is changed
last and least. Batch normalisation in a frozen stage keeps its statistics.
(Howard & Ruder, "Universal language model fine-tuning for text classification", 2018, section 3.2.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from trimtab_compressor.passes.stage import Network, NetworkStage
from trimtab_compressor.passes.train import label_loss, schedule
from trimtab_compressor.passes.training_loop import ParameterGroup, run_epochs
from trimtab_compressor.passes.transfer import start_from_source
from trimtab_compressor.specs.transfer import TransferFinetune
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError

Stage = list[nn.Module]
"""Layers that are frozen and unfrozen together."""


def transfer_finetune(stage: NetworkStage[TransferFinetune]) -> Network:
    """Train the network further, a stage at a time.

    Raises:
        ConfigError: The source does not fit; there are more stages than layers, or than epochs.
        ModelError: Training diverged.
    """
    spec, task, model = stage.spec, stage.task, stage.model
    training = task.training
    last_start = (spec.stages - 1) * spec.epochs_per_stage
    if last_start >= training.epochs:
        raise ConfigError(
            f"transfer_finetune: the last of {spec.stages} stages would begin after {last_start} epochs, "
            f"training.epochs is {training.epochs}; use fewer stages or more epochs"
        )
    head, findings = start_from_source(stage, spec.source_task)
    stages = divide_layers(model, head, spec.stages, task)
    plan = schedule(training, training.epochs, training.fine_tune_learning_rate)
    run_epochs(
        model,
        task.train.inputs,
        label_loss(task),
        plan,
        groups=group_parameters(stages, spec.rate_decay),
        on_epoch=unfreeze_gradually(stages, spec.epochs_per_stage),
    )
    model.requires_grad_(True)
    return Network(model, stage.width, {**findings, "stages": len(stages)})


def unfreeze_gradually(stages: Sequence[Stage], epochs_per_stage: int) -> Callable[[int], None]:
    """What to do at the beginning of each epoch: the stages whose time has come learn, the rest not.

    Args:
        stages: The head's first.
        epochs_per_stage: 0 for all at once.
    """

    def begin(epoch: int) -> None:
        for depth, layers in enumerate(stages):
            learns = epoch >= depth * epochs_per_stage
            for layer in layers:
                layer.training = learns  # not `train`, which would change the layers inside
                for parameter in layer.parameters(recurse=False):
                    parameter.requires_grad_(learns)

    return begin


def divide_layers(model: nn.Module, head: str, count: int, task: Task) -> list[Stage]:
    """The head, and the other layers in equal parts in the order in which they run, last first.

    A layer without weights of its own (an activation, dropout) belongs to none. What does not follow a
    convolution or dense layer (a normalisation does) and what did not run belongs to the lowest stage.

    Raises:
        ConfigError: There are fewer layers than stages.
    """
    top = model.get_submodule(head)
    others = [layer for layer in _in_running_order(model, task) if layer is not top]
    if count == 1:
        return [[top, *others]]
    units: list[Stage] = [[]]
    for layer in others:
        if _mixes(layer) and any(_mixes(row) for row in units[-1]):
            units.append([])
        units[-1].append(layer)
    if len(units) < count - 1:
        raise ConfigError(
            f"transfer_finetune: {count} stages of a network with {len(units) + 1} layers; use fewer"
        )
    stages: list[Stage] = [[top]]
    for part in range(count - 1, 0, -1):
        start = len(units) * (part - 1) // (count - 1)
        end = len(units) * part // (count - 1)
        stages.append([layer for row in units[start:end] for layer in row])
    return stages


def _mixes(layer: nn.Module) -> bool:
    """Whether a layer combines features, as a convolution does and a normalisation does not."""
    weight = getattr(layer, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim > 1


def group_parameters(stages: Sequence[Stage], rate_decay: float) -> list[ParameterGroup]:
    """The weights of each stage with its rate; what two layers share belongs to the higher one."""
    taken: set[nn.Parameter] = set()
    groups: list[ParameterGroup] = []
    for depth, layers in enumerate(stages):
        own = dict.fromkeys(row for layer in layers for row in layer.parameters(recurse=False))
        groups.append(ParameterGroup([row for row in own if row not in taken], rate_decay**depth))
        taken |= own.keys()
    return groups


def _in_running_order(model: nn.Module, task: Task) -> list[nn.Module]:
    """All modules that own weights: first those that did not run by themselves, then by when they ran."""
    owners = [row for row in model.modules() if list(row.parameters(recurse=False))]
    ran: list[nn.Module] = []

    def note(layer: nn.Module, _inputs: object) -> None:
        if layer not in ran:
            ran.append(layer)

    handles = [row.register_forward_pre_hook(note) for row in owners]
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(2, *task.input_shape))
    finally:
        for handle in handles:
            handle.remove()
    return [row for row in owners if row not in ran] + ran
