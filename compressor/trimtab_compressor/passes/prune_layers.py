"""Layer pruning: whole residual blocks go, the one that is missed least first.

How much a block is missed is measured: the network's accuracy on training samples with the block
bypassed, against that of the network as it is. After each removal and fine-tuning the rest is measured
again, because what one block did another may have learnt.
"""

from __future__ import annotations

import copy

from torch import nn

from trimtab_compressor.agreement import top1_accuracy
from trimtab_compressor.macs import count_parameters
from trimtab_compressor.passes.prune_blocks import find_blocks
from trimtab_compressor.passes.prune_steps import (
    compare_counts,
    fine_tune,
    tuning_loss,
    walk_steps,
)
from trimtab_compressor.passes.stage import Network, NetworkStage
from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.specs.pruning import PruneLayers
from trimtab_compressor.structure import remove_blocks, removed_blocks
from trimtab_compressor.task import Task

NAMED_BLOCKS = 24
"""As many blocks as findings name."""


def prune_layers(stage: NetworkStage[PruneLayers]) -> Network:
    """Remove blocks one by one, fine-tune after each, and keep what may be kept.

    Raises:
        ConfigError: A block that is named does not exist or cannot go.
        ModelError: There is no residual block, or too much accuracy was lost.
    """
    spec, task = stage.spec, stage.task
    names = find_blocks(stage.model, task, spec.names)
    steps = min(spec.blocks, len(names))
    loss = tuning_loss(stage)
    first_drops: dict[str, float] = {}

    def take_step(model: nn.Module, step: int) -> str | None:
        there = set(dict(model.named_modules())) - set(removed_blocks(model))
        left = [name for name in names if name in there]
        if not left:
            return None
        drops = rank_blocks(model, left, task, spec.samples)
        if step == 1:
            first_drops.update(drops)
        name, drop = next(iter(drops.items()))
        remove_blocks(model, [name])
        if spec.is_fine_tuned:
            fine_tune(model, task, loss)
        return f"without {name} (missed by {drop:.2f} points)"

    walked = walk_steps(stage, steps, take_step)
    already = removed_blocks(stage.model)
    gone = [name for name in removed_blocks(walked.module) if name not in already]
    findings = {
        **walked.findings,
        **compare_counts(stage.model, walked.module, task),
        "blocks_found": len(names),
        "removed": ", ".join(gone),
        "missed_by_points": ", ".join(
            f"{name} {drop:.2f}" for name, drop in list(first_drops.items())[:NAMED_BLOCKS]
        ),
    }
    return Network(walked.module, stage.width, findings)


def rank_blocks(model: nn.Module, names: list[str], task: Task, samples: int) -> dict[str, float]:
    """How many points of accuracy each block is missed by when it is bypassed, least first.

    Of equals the one with more parameters comes first.

    Args:
        model: Not changed.
        names: Of its blocks.
        task: Its first training samples are asked.
        samples: How many of them.
    """
    whole = _train_accuracy(model, task, samples)
    drops, sizes = {}, {}
    for name in names:
        bypassed = copy.deepcopy(model)
        sizes[name] = count_parameters(dict(model.named_modules())[name])
        remove_blocks(bypassed, [name])
        drops[name] = 100 * (whole - _train_accuracy(bypassed, task, samples))
    return dict(sorted(drops.items(), key=lambda row: (row[1], -sizes[row[0]])))


def _train_accuracy(model: nn.Module, task: Task, samples: int) -> float:
    inputs, labels = task.train.inputs[:samples], task.train.labels[:samples]
    return top1_accuracy(predict(model, inputs).numpy(), labels)
