"""How much each channel of a dependency group matters.

magnitude: the squared norm of all weights that go with the channel, relative to the group's mean
    (Li et al., ICLR 2017; over groups: Fang et al., CVPR 2023).
bn_scale: |γ| of the batch normalisation behind the channel (Liu et al., ICCV 2017). Before it, an L1
    penalty on all γ may press the ones that matter least towards zero: loss + λ Σ|γ|.
taylor: a gate g = 1 at each channel's output; removing the channel changes the loss by about ∂L/∂g.
    Importance is the mean over batches of (∂L/∂g)² (Molchanov et al., CVPR 2019). Behind a batch
    normalisation ∂L/∂g = γ ∂L/∂γ + β ∂L/∂β, else Σ w ∂L/∂w + b ∂L/∂b over the channel's filter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from trimtab_compressor.passes.train import label_loss
from trimtab_compressor.passes.training_loop import Loss
from trimtab_compressor.specs.pruning import PruneChannels
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ModelError

TAYLOR_SAMPLES = 2048
"""Enough for the ranking to settle; the gradients of more change nothing that matters."""

Importance = Callable[[Any], Tensor | None]
"""(group of Torch-Pruning with all its channels) -> (channels,), or None if nothing can be said"""


def choose_importance(spec: PruneChannels, model: nn.Module, task: Task) -> Importance:
    """The importance that the spec names, for the network as it is now.

    Raises:
        ModelError: "bn_scale" of a network without batch normalisation.
    """
    if spec.importance == "magnitude":
        magnitude: Importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
        return magnitude
    if spec.importance == "bn_scale":
        return GateImportance(bn_scales(model), is_summed=False)
    return GateImportance(taylor_gates(model, task), is_summed=True)


class GateImportance:
    """Importance of a group's channels from a value per output channel of its layers.

    Args:
        gates: By layer, (channels,). Where a group has batch normalisations, only theirs count.
        is_summed: Whether the layers of a group add up, or their mean is taken.
    """

    def __init__(self, gates: Mapping[nn.Module, Tensor], *, is_summed: bool) -> None:
        self._gates = gates
        self._is_summed = is_summed

    def __call__(self, group: Any) -> Tensor | None:
        """Values of the layers that make the channels, gathered at the group's root."""
        members = [item for item in group.items if self._makes_channels(item.dep)]
        norms = [item for item in members if isinstance(item.dep.target.module, _BatchNorm)]
        members = norms or members
        if not members:
            return None
        total = torch.zeros(len(group.items[0].idxs))
        for item in members:
            values = self._gates[item.dep.target.module]
            total.scatter_add_(0, torch.tensor(item.root_idxs), values[torch.tensor(item.idxs)])
        return total if self._is_summed else total / len(members)

    def _makes_channels(self, dependency: Any) -> bool:
        layer = dependency.target.module
        if layer not in self._gates:
            return False
        return isinstance(layer, _BatchNorm) or "out_channels" in dependency.handler.__name__


def bn_scales(model: nn.Module) -> dict[nn.Module, Tensor]:
    """|γ| of each batch normalisation, by layer.

    Raises:
        ModelError: There is none.
    """
    found: dict[nn.Module, Tensor] = {row: row.weight.detach().abs() for row in _norms(model)}
    if not found:
        raise ModelError(
            "importance 'bn_scale' needs batch normalisation, and this network has none; use "
            "'magnitude' or 'taylor'"
        )
    return found


def sparse_loss(model: nn.Module, loss: Loss, weight: float) -> Loss:
    """A loss with the L1 norm of all batch normalisation scales added, times `weight`."""
    scales = [layer.weight for layer in _norms(model)]

    def with_penalty(logits: Tensor, rows: Tensor) -> Tensor:
        return loss(logits, rows) + weight * torch.stack([row.abs().sum() for row in scales]).sum()

    return with_penalty


def taylor_gates(model: nn.Module, task: Task) -> dict[nn.Module, Tensor]:
    """Mean over batches of (∂L/∂gate)² for each output channel, by layer.

    Args:
        model: In evaluation mode afterwards; its gradients are cleared.
        task: Its first training samples are the batches.
    """
    kinds = (_BatchNorm, _ConvNd, nn.Linear)
    layers = [row for row in model.modules() if isinstance(row, kinds) and row.weight is not None]
    found: dict[nn.Module, Tensor] = {}
    loss, inputs = label_loss(task), torch.from_numpy(task.train.inputs[:TAYLOR_SAMPLES])
    batches = torch.split(torch.arange(len(inputs)), task.training.batch)
    model.eval()
    for rows in batches:
        model.zero_grad()
        loss(model(inputs[rows]), rows).backward()  # type: ignore[no-untyped-call]
        for layer in layers:
            change = _gate_gradient(layer)
            if change is not None:
                found[layer] = found.get(layer, torch.zeros(())) + change**2 / len(batches)
    model.zero_grad()
    return found


@torch.no_grad()
def _gate_gradient(layer: Any) -> Tensor | None:
    """∂L/∂gate of each output channel, (channels,); None if the layer had no part in the loss."""
    weight = layer.weight
    if weight.grad is None:
        return None
    product = weight * weight.grad
    if getattr(layer, "transposed", False):
        product = product.transpose(0, 1)
    change = product.reshape(len(product), -1).sum(dim=1)
    if layer.bias is not None and layer.bias.grad is not None:
        change = change + layer.bias * layer.bias.grad
    return torch.as_tensor(change)


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [row for row in model.modules() if isinstance(row, _BatchNorm) and row.affine]
