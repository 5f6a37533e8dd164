"""The grid that a quantizer will put weights on: symmetric, so zero is on it.

    step = max |w| / end,   w_q = step * round(w / step),   end = 2^(bits-1) - 1

with the largest weight taken per output channel or over the whole tensor. A reduced range ends at
2^(bits-2) (ONNX Runtime's `reduce_range`: -64 to 64 for 8 bits). ONNX Runtime and AI Edge Quantizer
both choose this step, from the weights alone; so weights that lie on the grid, with the largest at
its end, are left as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trimtab_compressor.arrays import FloatArray


@dataclass(frozen=True)
class WeightGrid:
    """How the quantizer that follows will round weights.

    Args:
        bits: Of a weight, 2 to 8.
        is_per_channel: One step per output channel, the first axis; else one per tensor.
        is_range_reduced: See above.
    """

    bits: int = 8
    is_per_channel: bool = True
    is_range_reduced: bool = False

    @property
    def end(self) -> int:
        """The largest integer of the grid; the smallest is its negative."""
        return (1 << self.bits - 2) if self.is_range_reduced else (1 << self.bits - 1) - 1

    def steps(self, weight: FloatArray) -> NDArray[np.float64]:
        """(out, ...) -> (out, 1, ...); 1 where all weights are 0."""
        magnitude = np.abs(weight.astype(np.float64))
        axes = tuple(range(1, weight.ndim)) if self.is_per_channel else None
        largest = magnitude.max(axis=axes, keepdims=True)
        largest = np.where(largest > 0, largest, self.end)
        shape = (weight.shape[0],) + (1,) * (weight.ndim - 1)
        return np.asarray(np.broadcast_to(largest / self.end, shape))

    def nearest(self, weight: FloatArray) -> FloatArray:
        """Each weight at the nearest point of the grid."""
        steps = self.steps(weight)
        return self.place(np.rint(weight / steps), steps)

    def place(self, integers: NDArray[np.float64], steps: NDArray[np.float64]) -> FloatArray:
        """Integers of the grid as weights."""
        kept = np.clip(integers, -self.end, self.end)
        return np.asarray(kept * steps, np.float32)
