"""Which layers form a pair: pure rules over what an adapter found between the layers.

A positive factor per channel passes a ReLU, a leaky ReLU, a pooling, zero padding, a transposition
and a flattening; it does not pass an addition, a concatenation or any other function. It passes a
clip only within limits, which the pair carries along. Every tensor on the way has one reader.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from trimtab_compressor.arrays import IntArray
from trimtab_compressor.layers.port import Clip, Layer, LayerKind, Pair


class PassageKind(str, Enum):
    """How an operator lets channels through."""

    KEEP = "keep"  # same axes: ReLU, pooling, padding
    CLIP = "clip"  # same axes, with an upper limit
    REMOVE = "remove"  # some axes go, such as by a mean over space
    TRANSPOSE = "transpose"
    FLATTEN = "flatten"  # all axes but the first become one


@dataclass(frozen=True)
class Passage:
    """An operator that may lie between the layers of a pair.

    Args:
        kind: See PassageKind.
        target: The tensor that it gives.
        limit: Of a clip.
        axes: The permutation, or the axes that go (never negative).
        shape: Before flattening, without the first axis.
    """

    kind: PassageKind
    target: str
    limit: float = math.inf
    axes: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Trail:
    """Where the channels of a layer's output are, some operators later."""

    tensor: str
    rank: int
    axis: int
    channels: int
    flat: IntArray | None = None
    clip: Clip | None = None


def find_pairs(
    layers: Sequence[Layer], passages: Mapping[str, Passage], readers: Mapping[str, int]
) -> tuple[Pair, ...]:
    """All pairs, in the order of their first layers.

    Args:
        layers: Of the file.
        passages: By the tensor that they read.
        readers: How often each tensor is read; being an output of the model counts too.
    """
    by_input = {layer.input: layer for layer in layers}
    found = (_follow(layer, by_input, passages, readers) for layer in layers)
    return tuple(pair for pair in found if pair is not None)


def _follow(
    first: Layer,
    by_input: Mapping[str, Layer],
    passages: Mapping[str, Passage],
    readers: Mapping[str, int],
) -> Pair | None:
    if first.rank == 0:
        return None
    trail: _Trail | None = _Trail(first.output, first.rank, first.channel_axis, first.outputs)
    while trail is not None and readers.get(trail.tensor, 0) == 1:
        if trail.tensor in by_input:
            return _close(first, by_input[trail.tensor], trail)
        passage = passages.get(trail.tensor)
        if passage is None:
            return None
        trail = _STEPS[passage.kind](trail, passage)
    return None


def _close(first: Layer, second: Layer, trail: _Trail) -> Pair | None:
    """The pair, if the second layer reads the channels where they are."""
    if second.kind is LayerKind.DENSE:
        fits = trail.axis == trail.rank - 1
    else:
        fits = trail.axis == second.channel_axis and trail.rank == second.weight.ndim
    channels = np.arange(trail.channels) if trail.flat is None else trail.flat
    if not fits or len(channels) != second.inputs:
        return None
    return Pair(first.name, second.name, channels, trail.clip)


def _keep(trail: _Trail, passage: Passage) -> _Trail:
    return replace(trail, tensor=passage.target)


def _clip(trail: _Trail, passage: Passage) -> _Trail | None:
    if trail.clip is not None or trail.flat is not None:
        return None
    return replace(
        trail, tensor=passage.target, clip=Clip(passage.target, passage.limit, trail.axis)
    )


def _remove(trail: _Trail, passage: Passage) -> _Trail | None:
    if trail.axis in passage.axes or 0 in passage.axes:
        return None
    before = sum(axis < trail.axis for axis in passage.axes)
    return replace(
        trail,
        tensor=passage.target,
        rank=trail.rank - len(passage.axes),
        axis=trail.axis - before,
    )


def _transpose(trail: _Trail, passage: Passage) -> _Trail | None:
    if trail.flat is not None or len(passage.axes) != trail.rank or passage.axes[0] != 0:
        return None
    return replace(trail, tensor=passage.target, axis=passage.axes.index(trail.axis))


def _flatten(trail: _Trail, passage: Passage) -> _Trail | None:
    """Write down which channel each feature comes from: NCHW and NHWC differ only here."""
    axis = trail.axis - 1
    if trail.flat is not None or len(passage.shape) != trail.rank - 1 or axis < 0:
        return None
    if passage.shape[axis] != trail.channels:
        return None
    along = [1] * len(passage.shape)
    along[axis] = trail.channels
    flat = np.broadcast_to(np.arange(trail.channels).reshape(along), passage.shape).reshape(-1)
    return replace(trail, tensor=passage.target, rank=2, axis=1, flat=flat)


_STEPS: dict[PassageKind, Callable[[_Trail, Passage], _Trail | None]] = {
    PassageKind.KEEP: _keep,
    PassageKind.CLIP: _clip,
    PassageKind.REMOVE: _remove,
    PassageKind.TRANSPOSE: _transpose,
    PassageKind.FLATTEN: _flatten,
}
