"""Structured pruning: whole channels go, with everything that depends on them (DepGraph).

Torch-Pruning finds the dependency groups (Fang et al., CVPR 2023): layers whose channels can only go
together, such as all that a residual stream runs through, or a depthwise convolution and what is
before it. What matters is in `prune_importance`, how much remains in `prune_plan`. The result is an
ordinary, smaller network.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
import torch_pruning
from torch import nn
from torch.nn.modules.conv import _ConvNd

from trimtab_compressor.grids import find_grid
from trimtab_compressor.heads import output_width
from trimtab_compressor.passes.prune_importance import (
    Importance,
    bn_scales,
    choose_importance,
    sparse_loss,
)
from trimtab_compressor.passes.prune_plan import ChannelGroup, choose_channels, plan_widths
from trimtab_compressor.passes.prune_steps import (
    compare_counts,
    fine_tune,
    tuning_loss,
    walk_steps,
)
from trimtab_compressor.passes.stage import Network, NetworkStage
from trimtab_compressor.passes.train import schedule
from trimtab_compressor.passes.training_loop import Loss, run_epochs
from trimtab_compressor.specs.pruning import PruneChannels
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError, ErrorCode, ModelError

ROOTS = (_ConvNd, nn.Linear)
UNSUPPORTED = (nn.MultiheadAttention, nn.RNNBase, nn.RNNCellBase)
"""Their channels hang together in ways that the dependency groups do not tell reliably."""

NAMED_WIDTHS = 24
"""As many layers as findings name; the rest is counted."""


def prune_channels(stage: NetworkStage[PruneChannels]) -> Network:
    """Remove channels in steps, check that something went and the output stayed, fine-tune.

    Raises:
        ConfigError: A layer that is named does not exist, or the structure is not supported.
        ModelError: Nothing could be removed, the output changed its shape, or too much was lost.
    """
    spec, task = stage.spec, stage.task
    check_structure(stage.model, task)
    _check_names(stage.model, spec)
    grid, source = spec.round_to, "given"
    if grid is None:
        grid, source = find_grid(spec.device_class, spec.precision)
    cutter = _Cutter(spec, task, grid, channel_counts(stage.model))
    loss = tuning_loss(stage)

    def take_step(model: nn.Module, step: int) -> str | None:
        if step == 1 and spec.sparse_epochs > 0:
            press_scales(model, task, spec, loss)
        share = step / spec.steps
        if not cutter.cut(model, share):
            return None
        if spec.is_fine_tuned:
            fine_tune(model, task, loss)
        return f"{share * spec.ratio:.0%}"

    walked = walk_steps(stage, spec.steps, take_step)
    findings = {
        **walked.findings,
        **compare_counts(stage.model, walked.module, task),
        "ratio_kept": round(walked.kept / spec.steps * spec.ratio, 4),
        "grid": grid,
        "grid_from": source,
        "widths": _describe_widths(stage.model, walked.module),
    }
    return Network(walked.module, stage.width, findings)


class _Cutter:
    """Cuts networks of one task to the widths that a share of the spec's ratios leaves.

    Args:
        spec: What to do.
        task: Gives the input's shape, and the layers to leave alone.
        grid: Multiple of channels.
        initial: Output channels by layer, before the first step.
    """

    def __init__(self, spec: PruneChannels, task: Task, grid: int, initial: dict[str, int]) -> None:
        self._spec = spec
        self._task = task
        self._grid = grid
        self._initial = initial

    def cut(self, model: nn.Module, share: float) -> bool:
        """Remove channels in place; False if none had to go.

        Args:
            model: Of the task; in evaluation mode afterwards.
            share: Of all ratios, in (0, 1].

        Raises:
            ModelError: Torch-Pruning cannot follow the network, or it does not run any more.
        """
        importance = choose_importance(self._spec, model, self._task)
        kept = layers_to_keep(model, self._task)
        example = torch.zeros(2, *self._task.input_shape)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                graph = torch_pruning.DependencyGraph().build_dependency(model, example)
                rated = self._rate_groups(graph, kept, importance, share)
                removed = self._remove(rated, share)
                found = tuple(model.eval()(example).shape)
        except (
            Exception
        ) as error:  # Torch-Pruning raises whatever a structure makes it stumble over
            raise ModelError(
                f"channels cannot be pruned: the network's structure cannot be followed "
                f"({type(error).__name__}: {error}); name the layers around it in the task's "
                "ignored_layers, or use prune_weights",
                code=ErrorCode.MODEL_UNREADABLE,
            ) from error
        if found != (2, self._task.classes):
            raise ModelError(
                f"after pruning the output is {list(found)}, expected [2, {self._task.classes}]; "
                "name the last layer in the task's ignored_layers"
            )
        return removed

    def _rate_groups(
        self, graph: Any, kept: list[nn.Module], importance: Importance, share: float
    ) -> list[tuple[Any, ChannelGroup]]:
        names = {layer: name for name, layer in graph.model.named_modules()}
        own_ratios = self._spec.ratio_by_layer()
        rated = []
        for group in graph.get_all_groups(ignored_layers=kept, root_module_types=ROOTS):
            values = importance(group)
            if values is None:
                continue
            makers = [names[row] for row in _makers(graph, group)]
            given = [own_ratios[name] for name in makers if name in own_ratios]
            row = ChannelGroup(
                name=makers[0],
                importance=tuple(values.tolist()),
                initial=self._initial[makers[0]],
                own_ratio=min(given) * share if given else None,
                parts=_count_parts(group),
            )
            rated.append((group, row))
        return rated

    def _remove(self, rated: list[tuple[Any, ChannelGroup]], share: float) -> bool:
        spec = self._spec
        rows = [row for _, row in rated]
        is_global = spec.scope == "global"
        widths = plan_widths(rows, spec.ratio * share, self._grid, is_global=is_global)
        for (group, row), width in zip(rated, widths, strict=True):
            if width < row.current:
                group.prune(choose_channels(row.importance, width, row.parts))
        return any(width < row.current for row, width in zip(rows, widths, strict=True))


def _makers(graph: Any, group: Any) -> list[nn.Module]:
    """The convolutions and dense layers whose outputs are the group's channels; the root is first."""
    return [
        row.dep.target.module
        for row in group.items
        if isinstance(row.dep.target.module, ROOTS)
        and graph.is_out_channel_pruning_fn(row.dep.handler)
    ]


def _count_parts(group: Any) -> int:
    """Into how many equal parts the group's channels are cut; depthwise layers cut nothing."""
    parts = [1]
    for row in group.items:
        layer = row.dep.target.module
        if isinstance(layer, nn.GroupNorm):
            parts.append(layer.num_groups)
        elif isinstance(layer, _ConvNd) and layer.groups != layer.out_channels:
            parts.append(layer.groups)
    return math.lcm(*parts)


def press_scales(model: nn.Module, task: Task, spec: PruneChannels, loss: Loss) -> None:
    """Train with an L1 penalty on the scales of batch normalisations (Liu et al., ICCV 2017).

    Raises:
        ModelError: There is no batch normalisation, or training diverged.
    """
    bn_scales(model)
    training = task.training
    plan = schedule(training, spec.sparse_epochs, training.fine_tune_learning_rate)
    run_epochs(model, task.train.inputs, sparse_loss(model, loss, spec.sparse_weight), plan)


def check_structure(model: nn.Module, task: Task) -> None:
    """Refuse a network whose channels cannot be followed.

    Raises:
        ConfigError: It has attention or recurrent layers that are not ignored.
    """
    ignored = tuple(task.ignored_layers)
    for name, layer in model.named_modules():
        is_ignored = any(name == row or name.startswith(f"{row}.") for row in ignored)
        if isinstance(layer, UNSUPPORTED) and not is_ignored:
            raise ConfigError(
                f"prune_channels cannot follow '{name}', a {type(layer).__name__}; name it in the "
                "task's ignored_layers, or use prune_weights"
            )


def _check_names(model: nn.Module, spec: PruneChannels) -> None:
    layers = {name for name, layer in model.named_modules() if isinstance(layer, ROOTS)}
    missing = [name for name in spec.ratio_by_layer() if name not in layers]
    if missing:
        raise ConfigError(
            f"prune_channels: layer_ratios names '{missing[0]}', the network's layers with channels "
            f"are {', '.join(sorted(layers))}"
        )


def channel_counts(model: nn.Module) -> dict[str, int]:
    """Output channels of convolutions and dense layers, by name."""
    counts = {name: output_width(layer) for name, layer in model.named_modules()}
    return {name: count for name, count in counts.items() if count is not None}


def _describe_widths(before: nn.Module, after: nn.Module) -> str:
    then, now = channel_counts(before), channel_counts(after)
    rows = [f"{name} {then[name]}>{now[name]}" for name in now if then[name] != now[name]]
    rest = len(rows) - NAMED_WIDTHS
    return ", ".join(rows[:NAMED_WIDTHS]) + (f" and {rest} more" if rest > 0 else "")


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
