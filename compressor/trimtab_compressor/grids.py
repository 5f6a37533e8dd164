"""GRIDS: multiples of channels that a device's kernels work on without a rest.

A prior by device class and precision, to begin with; what a device measures goes before it. Sources:
    x86: measured with ONNX Runtime 1.32 on AVX2 (docs/techniques.md, Pruning): float widths that are
        no multiple of 4 leave the blocked layout and take more than twice as long; int8 is best at
        multiples of 16.
    ARM: the tiles of MLAS and XNNPACK, 4 to 8 wide for float, 16 for int8 dot products.
    Jetson: TensorRT's layouts, 8 wide for fp16 and 32 for int8. Its CPU is served as well by these.

Rule: an unknown class gets DEFAULT_GRID, and the name of the row says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
"""What the weights will be when the model runs, after all passes."""

DEFAULT_GRID = 8
"""Fits every float kernel below; int8 kernels may like 16 better."""


@dataclass(frozen=True)
class Grid:
    """Channel counts are best multiples of these.

    Args:
        prefix: Device classes begin with it, see `trimtab-agent doctor` for a device's own.
        fp32: For float weights.
        fp16: For half floats.
        int8: For 8-bit weights and activations.
    """

    prefix: str
    fp32: int
    fp16: int
    int8: int


GRIDS = (
    Grid("raspberry-pi-5", fp32=8, fp16=8, int8=16),
    Grid("raspberry-pi", fp32=8, fp16=8, int8=8),
    Grid("nvidia-jetson", fp32=8, fp16=8, int8=32),
    Grid("jetson", fp32=8, fp16=8, int8=32),
    Grid("intel", fp32=8, fp16=8, int8=16),
    Grid("amd", fp32=8, fp16=8, int8=16),
    Grid("x86", fp32=8, fp16=8, int8=16),
)
"""The first whose prefix fits."""


def find_grid(device_class: str | None, precision: Precision) -> tuple[int, str]:
    """The grid of a device class, and where it comes from.

    Args:
        device_class: As devices name it; None if the model is for any.
        precision: See Precision.

    Returns:
        Multiple of channels, and a text for people.
    """
    for row in GRIDS:
        if device_class is not None and device_class.startswith(row.prefix):
            return int(getattr(row, precision)), f"{row.prefix}, {precision}"
    return (
        DEFAULT_GRID,
        "default" if device_class is None else f"default: {device_class} is unknown",
    )
