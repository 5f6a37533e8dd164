"""The one loop that all training passes share: AdamW, one-cycle learning rate, whole batches.

What weight pruning set to zero stays zero, whichever pass trains the network afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trimtab_compressor.arrays import FloatArray
from trimtab_compressor.structure import HeldZeros
from trimtab_protocol.errors import ErrorCode, ModelError

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits (b, classes), row indices (b,)) -> scalar"""

AfterStep = Callable[[int, int], None]
"""(steps done, steps in all): called after each step of the optimizer, the first time with 1."""

PREDICT_BATCH = 100


@dataclass(frozen=True)
class Schedule:
    """How long and how fast."""

    epochs: int
    batch: int
    peak_learning_rate: float
    weight_decay: float
    seed: int


@dataclass(frozen=True)
class ParameterGroup:
    """Weights that learn at `rate_ratio` times the schedule's rate."""

    parameters: Sequence[nn.Parameter]
    rate_ratio: float = 1.0


def run_epochs(
    model: nn.Module,
    inputs: FloatArray,
    loss: Loss,
    schedule: Schedule,
    *,
    groups: Sequence[ParameterGroup] = (),
    on_epoch: Callable[[int], None] | None = None,
    after_step: AfterStep | None = None,
) -> None:
    """Train `model` in place, in a reproducible order.

    Args:
        model: Its weights are changed; in training mode meanwhile, in evaluation mode afterwards.
        inputs: (n, *input shape), normalised.
        loss: See Loss.
        schedule: How long and how fast.
        groups: What learns, and how fast; empty for all weights alike. A weight that needs no gradient
            stays as it is.
        on_epoch: Told the number of each epoch before it begins; may freeze and unfreeze.
        after_step: May change the weights, such as by a mask.

    Raises:
        ModelError: The loss is no longer finite; lower the learning rate.
    """
    if schedule.epochs == 0:
        return
    generator = torch.Generator().manual_seed(schedule.seed)
    torch.manual_seed(schedule.seed)
    rows = torch.from_numpy(inputs)
    batch = min(schedule.batch, len(rows))
    steps = len(rows) // batch
    chosen = groups or [ParameterGroup(list(model.parameters()))]
    optimizer, cycle = _one_cycle(chosen, schedule, steps * schedule.epochs)
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    held = HeldZeros(model)
    for epoch in range(schedule.epochs):
        if on_epoch is not None:
            on_epoch(epoch)
        order = torch.randperm(len(rows), generator=generator)
        value = torch.zeros(())
        for step in range(steps):
            picked = order[step * batch : (step + 1) * batch]
            value = loss(model(rows[picked]), picked)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            cycle.step()
            held.apply()
            if after_step is not None:
                after_step(epoch * steps + step + 1, steps * schedule.epochs)
        if not torch.isfinite(value):
            raise ModelError(
                "training diverged: the loss is no longer finite; lower the learning rate",
                code=ErrorCode.MODEL_GOLDEN,
            )
    model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def _one_cycle(
    groups: Sequence[ParameterGroup], schedule: Schedule, steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.OneCycleLR]:
    optimizer = torch.optim.AdamW(
        [{"params": row.parameters} for row in groups],
        lr=schedule.peak_learning_rate,
        weight_decay=schedule.weight_decay,
        fused=True,
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [schedule.peak_learning_rate * row.rate_ratio for row in groups],
        total_steps=steps + 1,
        pct_start=0.25,
    )
    return optimizer, cycle


def predict(model: nn.Module, inputs: FloatArray) -> Tensor:
    """The network's outputs for all inputs: (n, *input shape) -> (n, classes)."""
    model.eval()
    rows = torch.from_numpy(inputs)
    with torch.inference_mode():
        parts = [model(part) for part in torch.split(rows, PREDICT_BATCH)]
    return torch.cat(parts).clone()
