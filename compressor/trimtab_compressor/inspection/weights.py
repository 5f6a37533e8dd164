"""Weights as real numbers, whatever they are stored as."""

from __future__ import annotations

import numpy as np

from trimtab_compressor.arrays import AnyArray, FloatArray
from trimtab_compressor.inspection.graph import Affine, Layer

_FLOATS = frozenset({"float64", "float32", "float16", "bfloat16"})


def real_weight(layer: Layer) -> FloatArray | None:
    """The weight as the layer multiplies by it, in the shape that is stored.

    Returns:
        None if there is none, or if its scale cannot be found in the file.
    """
    weight = layer.weight
    if weight is None or weight.values is None:
        return None
    if layer.affine is not None:
        return dequantize(np.asarray(weight.values()), layer.affine)
    if weight.dtype in _FLOATS:
        return np.asarray(weight.values()).astype(np.float32)
    return None


def dequantize(stored: AnyArray, affine: Affine) -> FloatArray:
    """Stored integers times their scale, from the zero point on; along an axis if it has several."""
    shape = [1] * stored.ndim
    if affine.axis is not None:
        shape[affine.axis] = -1
    scale, zero_point = affine.scale.reshape(shape), affine.zero_point.reshape(shape)
    return (scale * (stored.astype(np.float64) - zero_point)).astype(np.float32)
