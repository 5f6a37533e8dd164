"""Match the inputs and outputs of two files: by order and shape, NCHW to NHWC where that is clear.

Pure. A free axis fits any size. Where a shape could be read in both ways (all axes but the first
alike, in files of different formats), nothing is guessed: the caller must say which it is.
"""

from __future__ import annotations

from enum import Enum

from trimtab_compressor.arrays import AnyArray
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import TensorSpec

Shape = tuple[int | None, ...]

IMAGE_AXES = 4


class Layout(str, Enum):
    """How B's tensor is made of A's."""

    SAME = "same"
    NCHW_TO_NHWC = "nchw_to_nhwc"
    NHWC_TO_NCHW = "nhwc_to_nchw"


AXES = {Layout.NCHW_TO_NHWC: (0, 2, 3, 1), Layout.NHWC_TO_NCHW: (0, 3, 1, 2)}
BACK = {Layout.NCHW_TO_NHWC: Layout.NHWC_TO_NCHW, Layout.NHWC_TO_NCHW: Layout.NCHW_TO_NHWC}


def find_layout(
    a: TensorSpec, b: TensorSpec, *, asked: Layout | None, are_formats_mixed: bool
) -> Layout:
    """How B's tensor is made of A's.

    Args:
        a: Of the first file.
        b: Of the second.
        asked: What the person says; None to find out.
        are_formats_mixed: Whether ONNX meets TFLite, which often differ in their layout.

    Raises:
        ConfigError: The shapes do not fit, or fit in two ways.
    """
    layouts = list(Layout) if len(a.shape) == IMAGE_AXES else [Layout.SAME]
    possible = [row for row in layouts if _fits(move(a.shape, row), b.shape)]
    if asked is not None and asked in possible:
        return asked
    if not possible:
        raise ConfigError(
            f"'{a.name}' has shape {list(a.shape)}, '{b.name}' has {list(b.shape)}; the two files "
            "must take and give the same tensors, up to NCHW and NHWC"
        )
    if Layout.SAME in possible and not (are_formats_mixed and len(possible) > 1):
        return Layout.SAME
    if len(possible) > 1:
        names = " or ".join(row.value for row in possible)
        raise ConfigError(
            f"'{a.name}' of shape {list(a.shape)} can become '{b.name}' of {list(b.shape)} as {names}; "
            "say which with --layout"
        )
    return possible[0]


def move(shape: Shape, layout: Layout) -> Shape:
    """A shape in another layout; only images have one."""
    if layout is Layout.SAME or len(shape) != IMAGE_AXES:
        return shape
    return tuple(shape[axis] for axis in AXES[layout])


def move_array(rows: AnyArray, layout: Layout) -> AnyArray:
    """Samples in another layout, (n, c, h, w) <-> (n, h, w, c)."""
    if layout is Layout.SAME or rows.ndim != IMAGE_AXES:
        return rows
    return rows.transpose(AXES[layout])


def _fits(a: Shape, b: Shape) -> bool:
    """A free axis fits any size, and a batch of one any batch."""
    return len(a) == len(b) and all(
        one is None or other is None or one == other for one, other in zip(a, b, strict=True)
    )
