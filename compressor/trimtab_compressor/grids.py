"""The channel grid of a device class: the multiple of channels that its kernels work on without a rest.

The figures are those of `device_kinds.KINDS`: priors, which what a device measures replaces. Where they come
from: x86 was measured with ONNX Runtime on AVX2 (docs/techniques.md, Pruning): float widths that are no
multiple of 4 leave the blocked layout, int8 is best at multiples of 16. ARM: the tiles of MLAS and
XNNPACK. Jetson's GPU: TensorRT's layouts.
"""

from __future__ import annotations

from typing import Literal

from trimtab_compressor.device_kinds import GENERIC, kind_of_class

Precision = Literal["fp32", "fp16", "int8"]
"""What the weights will be when the model runs, after all passes."""

DEFAULT_GRID = 8
"""Fits every float kernel that is known; int8 kernels may like 16 better."""


def find_grid(device_class: str | None, precision: Precision) -> tuple[int, str]:
    """The grid of a device class, and where it comes from.

    Args:
        device_class: As devices name it, or a kind such as "pi4" or "x86-avx2"; None if the model is
            for any.
        precision: See Precision; fp16 has the grid of fp32.

    Returns:
        Multiple of channels, and a text for people. An unknown class has the default's, and is told so.
    """
    if device_class is None:
        return DEFAULT_GRID, "default"
    kind = kind_of_class(device_class).kind
    if kind.name == GENERIC:
        return DEFAULT_GRID, f"default: class {device_class} says nothing about its CPU"
    return kind.grid[precision == "int8"], f"{kind.name}, {precision}"
