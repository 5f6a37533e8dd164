"""What pruning did to a network that neither its class nor its sizes tell.

Rules:
    1. A removed block is a `RemovedBlock` in the place where it was: it gives its input on. A
       checkpoint keeps the names of these places.
    2. A layer with pruned weights is marked. Its mask is where its weights are not exactly zero, so a
       mask cannot be lost or differ from the weights; training keeps it (see `training_loop`).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MASK_MARK = "is_weight_masked"
"""Attribute of a layer, True where the zeros of its weight are held."""


class RemovedBlock(nn.Identity):
    """Stands where a block was removed."""


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another.

    Args:
        model: Changed in place.
        name: As in `named_modules`, such as "blocks.3".
        module: Takes the place.

    Raises:
        KeyError: There is no module of that name.
    """
    parent, _, attribute = name.rpartition(".")
    owner = dict(model.named_modules())[parent]
    if attribute not in dict(owner.named_children()):
        raise KeyError(name)
    setattr(owner, attribute, module)


def removed_blocks(model: nn.Module) -> list[str]:
    """Names of the places where blocks were removed."""
    return [name for name, row in model.named_modules() if isinstance(row, RemovedBlock)]


def remove_blocks(model: nn.Module, names: Iterable[str]) -> None:
    """Replace blocks by what gives its input on.

    Raises:
        KeyError: There is no module of that name.
    """
    for name in names:
        replace_module(model, name, RemovedBlock())


def masked_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers whose zeros are held, by name."""
    return {name: row for name, row in model.named_modules() if getattr(row, MASK_MARK, False)}


def mark_masked(layers: Iterable[nn.Module]) -> None:
    """Hold the zeros of these layers' weights from now on."""
    for layer in layers:
        setattr(layer, MASK_MARK, True)


class HeldZeros:
    """Keeps at zero what is zero now in the weights of marked layers.

    Args:
        model: In the memory format in which it is trained.
    """

    def __init__(self, model: nn.Module) -> None:
        self._masks: list[tuple[Tensor, Tensor]] = []
        for layer in masked_layers(model).values():
            weight = layer.weight
            assert isinstance(weight, Tensor)
            self._masks.append((weight, weight.detach() != 0))

    @torch.no_grad()
    def apply(self) -> None:
        """Set the held places to zero; after every step of an optimizer."""
        for weight, mask in self._masks:
            weight.mul_(mask)
