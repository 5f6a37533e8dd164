"""Which weights go: the smallest by magnitude, within each layer, over all, or N of every M.

Magnitude: Han et al., NeurIPS 2015. The cubic schedule (Zhu and Gupta, 2017) raises the share that is
zero from s_0 to s_f over the first part of fine-tuning, fast at first and slowly at the end:
    s(t) = s_f + (s_0 - s_f) (1 - t)³, t from 0 to 1
N:M: of every M weights along the inputs the N largest stay (Zhou et al., ICLR 2021).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

RAMP_SHARE = 0.7
"""Share of the steps in which the mask tightens; in the rest the network recovers."""

MASK_UPDATES = 100
"""How often it tightens in that time; each costs a sort of the weights."""

Weights = Mapping[str, Tensor]
"""By layer, (outputs, inputs, *kernel)."""


def smallest_masks(weights: Weights, ratio: float, *, is_global: bool) -> dict[str, Tensor]:
    """Masks that are 0 at the smallest weights and 1 elsewhere, shaped as the weights.

    What is zero already is smallest, so a mask of a higher ratio contains one of a lower.

    Args:
        weights: See Weights.
        ratio: Share that goes, rounded to a whole number of weights.
        is_global: Of all weights together; else of each layer.
    """
    flat = {name: row.detach().abs().flatten() for name, row in weights.items()}
    if is_global:
        joined = _mask_smallest(torch.cat(list(flat.values())), ratio)
        parts = torch.split(joined, [len(row) for row in flat.values()])
        masks = dict(zip(flat, parts, strict=True))
    else:
        masks = {name: _mask_smallest(row, ratio) for name, row in flat.items()}
    return {name: mask.view(weights[name].shape) for name, mask in masks.items()}


def _mask_smallest(magnitudes: Tensor, ratio: float) -> Tensor:
    gone = torch.topk(magnitudes, round(ratio * len(magnitudes)), largest=False).indices
    mask = torch.ones_like(magnitudes)
    mask[gone] = 0
    return mask


def pattern_masks(weights: Weights, kept: int, of: int) -> dict[str, Tensor]:
    """Masks that keep the `kept` largest of every `of` weights along the inputs.

    Args:
        weights: See Weights; the inputs are a multiple of `of`.
        kept: N.
        of: M.
    """
    return {name: _pattern_mask(row.detach(), kept, of) for name, row in weights.items()}


def _pattern_mask(weight: Tensor, kept: int, of: int) -> Tensor:
    last = weight.abs().movedim(1, -1)  # (outputs, inputs, *kernel) -> (outputs, *kernel, inputs)
    rows = last.reshape(-1, of)
    mask = torch.zeros_like(rows)
    mask.scatter_(1, torch.topk(rows, kept, dim=1).indices, 1)
    return mask.reshape(last.shape).movedim(-1, 1)


@torch.no_grad()
def apply_masks(weights: Weights, masks: Weights) -> None:
    """Set the weights to zero where their masks are."""
    for name, mask in masks.items():
        weights[name].mul_(mask)


def cubic_ratio(start: float, end: float, progress: float) -> float:
    """Share that is zero at a time of the schedule (Zhu and Gupta, 2017, equation 1).

    Args:
        start: s_0.
        end: s_f.
        progress: t, from 0; above 1 the ratio stays at the end.
    """
    return end + (start - end) * (1 - min(progress, 1.0)) ** 3


class Tightening:
    """Called after each training step: tightens the mask by the cubic schedule and applies it.

    Args:
        weights: Changed in place.
        start: Share that is zero now.
        end: Share that is zero in the end.
        is_global: See `smallest_masks`.
    """

    def __init__(self, weights: Weights, start: float, end: float, *, is_global: bool) -> None:
        self._weights = weights
        self._start = start
        self._end = end
        self._is_global = is_global
        self._masks = smallest_masks(weights, start, is_global=is_global)
        self._updates = 0

    def __call__(self, done: int, total: int) -> None:
        """See AfterStep."""
        progress = done / max(1.0, RAMP_SHARE * total)
        due = min(int(progress * MASK_UPDATES), MASK_UPDATES)
        if due > self._updates:
            self._updates = due
            apply_masks(self._weights, self._masks)
            ratio = cubic_ratio(self._start, self._end, due / MASK_UPDATES)
            self._masks = smallest_masks(self._weights, ratio, is_global=self._is_global)
        apply_masks(self._weights, self._masks)
