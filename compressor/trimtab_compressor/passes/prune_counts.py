"""Count what pruning saves: parameters, and multiply-accumulates of one sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from trimtab_compressor.passes.stage import Findings


def count_parameters(model: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Multiply-accumulates of convolutions and dense layers for one sample.

    Args:
        model: Not changed.
        input_shape: Of one sample, without the batch.
    """
    total = 0

    def add(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * _macs_per_output(layer)

    kinds = (_ConvNd, nn.Linear)
    hooks = [row.register_forward_hook(add) for row in model.modules() if isinstance(row, kinds)]
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, *input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return total


def _macs_per_output(layer: nn.Module) -> int:
    if isinstance(layer, nn.Linear):
        return layer.in_features
    assert isinstance(layer, _ConvNd)
    return layer.weight[0].numel()  # (out, in / groups, *kernel) -> in / groups * kernel


def compare_counts(before: nn.Module, after: nn.Module, input_shape: tuple[int, ...]) -> Findings:
    """Parameters and multiply-accumulates before and after."""
    return {
        "parameters_before": count_parameters(before),
        "parameters": count_parameters(after),
        "macs_before": count_macs(before, input_shape),
        "macs": count_macs(after, input_shape),
    }
