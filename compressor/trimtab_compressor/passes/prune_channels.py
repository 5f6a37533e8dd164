"""Structured pruning: whole channels go, with everything that depends on them (DepGraph).

Torch-Pruning finds the dependency groups (Fang et al., CVPR 2023); a group's importance is the
norm of its weights. The result is an ordinary, smaller network.
"""

from __future__ import annotations

import torch
import torch_pruning
from torch import nn

from trimtab_compressor.heads import output_width
from trimtab_compressor.passes.stage import Network, NetworkStage
from trimtab_compressor.passes.train import label_loss, schedule
from trimtab_compressor.passes.training_loop import run_epochs
from trimtab_compressor.specs.pruning import PruneChannels
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError, ModelError


def prune_channels(stage: NetworkStage[PruneChannels]) -> Network:
    """Remove channels, check that something went and the output stayed, then fine-tune.

    Raises:
        ConfigError: An ignored layer does not exist.
        ModelError: Nothing could be removed, or the output changed its shape.
    """
    model, spec, task = stage.model, stage.spec, stage.task
    before = count_parameters(model)
    example = torch.zeros(2, *task.input_shape)
    torch_pruning.pruner.BasePruner(
        model,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=spec.ratio,
        round_to=spec.round_to,
        ignored_layers=layers_to_keep(model, task),
    ).step()
    if count_parameters(model) == before:
        raise ModelError(
            f"pruning {spec.ratio:.0%} in steps of {spec.round_to} channels removed nothing: every "
            "layer is ignored or too narrow; use a higher ratio or a smaller round_to"
        )
    found = tuple(model.eval()(example).shape)
    if found != (2, task.classes):
        raise ModelError(
            f"after pruning the output is {list(found)}, expected [2, {task.classes}]; name the last "
            "layer in the task's ignored_layers"
        )
    if spec.is_fine_tuned:
        training = task.training
        plan = schedule(training, training.fine_tune_epochs, training.fine_tune_learning_rate)
        run_epochs(model, task.train.inputs, label_loss(task), plan)
    return Network(model, stage.width)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in model.parameters())


def layers_to_keep(model: nn.Module, task: Task) -> list[nn.Module]:
    """The ignored layers of the task, and the last layer that has one output per class.

    Raises:
        ConfigError: The task names a layer that the network does not have.
    """
    layers = dict(model.named_modules())
    missing = [name for name in task.ignored_layers if name not in layers]
    if missing:
        raise ConfigError(
            f"task {task.name}: ignored_layers names '{missing[0]}', the network has "
            f"{', '.join(name for name in layers if name)}"
        )
    kept = [layers[name] for name in task.ignored_layers]
    heads = [layer for layer in layers.values() if output_width(layer) == task.classes]
    return kept + heads[-1:]
