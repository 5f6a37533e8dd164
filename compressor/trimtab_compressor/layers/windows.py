"""What a layer's weights are multiplied with: windows of its input, as rows of numbers.

A window is (groups, in / groups * kernel), so that a dense layer, a convolution and a depthwise
convolution are all one product: weight (groups, out / groups, k) times window (groups, k).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab_compressor.arrays import FloatArray, IntArray
from trimtab_compressor.layers.port import Layer, Window


def mean_window(layer: Layer, activation: FloatArray) -> NDArray[np.float64]:
    """The mean of all windows of a batch, (groups, k): all samples, all positions.

    Args:
        layer: Who reads the activation.
        activation: (n, *shape), as the runtime gives it.
    """
    if layer.window is None:
        return np.asarray(activation.reshape(-1, layer.inputs).mean(axis=0, dtype=np.float64))[None]
    padded, sizes = _pad(layer, layer.window, activation)
    others = (0, *range(2, padded.ndim))
    everything = (slice(None), slice(None))
    taps = []
    for start in _taps(layer):
        parts = tuple(
            slice(first * dilation, first * dilation + (size - 1) * stride + 1, stride)
            for first, size, stride, dilation in zip(
                start, sizes, layer.window.strides, layer.window.dilations, strict=True
            )
        )
        taps.append(padded[everything + parts].mean(axis=others, dtype=np.float64))
    return np.stack(taps, axis=1).reshape(layer.groups, -1)  # (in, taps) -> (groups, k)


def pick_windows(
    layer: Layer, activation: FloatArray, per_sample: int, first_sample: int
) -> FloatArray:
    """Windows at random positions, the same at every call: (n * m, groups, k).

    Args:
        layer: Who reads the activation.
        activation: (n, *shape), as the runtime gives it.
        per_sample: m, how many of each sample; a layer with fewer gives all that it has.
        first_sample: Number of the batch's first sample, which decides the positions.
    """
    count = len(activation)
    if layer.window is None:
        rows = activation.reshape(count, -1, layer.inputs)
        where = _draw(count, per_sample, first_sample, rows.shape[1])
        picked = np.take_along_axis(rows, where[:, :, None], axis=1)
        return picked.reshape(-1, 1, layer.inputs)
    padded, sizes = _pad(layer, layer.window, activation)
    where = _draw(count, per_sample, first_sample, math.prod(sizes))
    corner = np.unravel_index(where.reshape(-1), sizes)
    everything: Any = slice(None)  # numpy's types know no mix of slices and arrays
    sample = np.repeat(np.arange(count), where.shape[1])
    taps = []
    for start in _taps(layer):
        point = tuple(
            place * stride + first * dilation
            for place, first, stride, dilation in zip(
                corner, start, layer.window.strides, layer.window.dilations, strict=True
            )
        )
        taps.append(padded[(sample, everything, *point)])  # (rows, in)
    return np.stack(taps, axis=2).reshape(len(sample), layer.groups, -1)


def multiply(layer: Layer, weight: FloatArray, windows: FloatArray) -> FloatArray:
    """The layer's output without bias: (rows, groups, k) -> (rows, out)."""
    grouped = weight.reshape(layer.groups, -1, windows.shape[-1])  # (groups, out / groups, k)
    return np.asarray(np.einsum("rgk,gok->rgo", windows, grouped)).reshape(len(windows), -1)


def _draw(count: int, per_sample: int, first_sample: int, places: int) -> IntArray:
    """(count, m) positions; a sample's own number seeds its draw."""
    if places <= per_sample:
        return np.broadcast_to(np.arange(places), (count, places))
    return np.stack(
        [
            np.random.default_rng(first_sample + row).integers(0, places, per_sample)
            for row in range(count)
        ]
    )


def _taps(layer: Layer) -> Iterator[tuple[int, ...]]:
    return np.ndindex(*layer.weight.shape[2:])


def _pad(
    layer: Layer, window: Window, activation: FloatArray
) -> tuple[FloatArray, tuple[int, ...]]:
    """(n, c, *space) with its zeros around, and the size of the output."""
    rows = np.moveaxis(activation, layer.channel_axis, 1)
    space, kernel = rows.shape[2:], layer.weight.shape[2:]
    reach = [
        dilation * (taps - 1) + 1 for dilation, taps in zip(window.dilations, kernel, strict=True)
    ]
    padding = window.padding
    if padding is None:
        totals = [
            max((math.ceil(size / stride) - 1) * stride + width - size, 0)
            for size, stride, width in zip(space, window.strides, reach, strict=True)
        ]
        padding = tuple((total // 2, total - total // 2) for total in totals)
    padded = np.pad(rows, ((0, 0), (0, 0), *padding))
    sizes = tuple(
        (size - width) // stride + 1
        for size, width, stride in zip(padded.shape[2:], reach, window.strides, strict=True)
    )
    return padded, sizes
