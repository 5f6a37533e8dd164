"""Polish a rounding one weight at a time: coordinate descent on the squared error of the outputs.

With the windows X of a channel, H = X^T X / rows and c = X^T y / rows, integers q on a grid of step s
cost q H q - 2 q c / s + constant. One integer alone is best at

    q_k - (q H - c / s)_k / H_kk

rounded to one of the two points around the float weight. Going through all k until nothing changes
never raises the cost. This is the quadratic problem that AdaRound relaxes (Nagel et al., ICML 2020,
equation 13 with one row of the layer at a time), solved on its integers.
"""

from __future__ import annotations

import numpy as np

from trimtab_compressor.arrays import FloatArray

MAX_ROUNDS = 4
MAX_TAPS = 2400
"""H has as many rows and columns; beyond this it costs more than it gives."""


def descend(
    start: FloatArray, low: FloatArray, high: FloatArray, windows: FloatArray, target: FloatArray
) -> FloatArray:
    """Better integers, all channels at once.

    Args:
        start: (groups, channels, k) integers, each `low` or `high`.
        low: The lower of the two points that each may take.
        high: The upper; equal to `low` where an integer is fixed.
        windows: (groups, rows, k).
        target: (groups, rows, channels): wanted outputs without bias, in steps of the grid.
    """
    taps, rows = start.shape[2], windows.shape[1]
    if taps > MAX_TAPS:
        return start
    gram = np.matmul(windows.transpose(0, 2, 1), windows) / np.float32(rows)
    wanted = np.matmul(target.transpose(0, 2, 1), windows) / np.float32(rows)
    found = start.copy()
    slope = np.matmul(found, gram) - wanted
    diagonal = np.maximum(np.diagonal(gram, axis1=1, axis2=2), np.float32(1e-12))
    for _round in range(MAX_ROUNDS):
        changes = 0
        for tap in range(taps):
            best = found[:, :, tap] - slope[:, :, tap] / diagonal[:, None, tap]
            moved = np.clip(np.rint(best), low[:, :, tap], high[:, :, tap]) - found[:, :, tap]
            group, channel = np.nonzero(moved)
            changes += len(group)
            if len(group):
                step = moved[group, channel]
                found[group, channel, tap] += step
                slope[group, channel] += step[:, None] * gram[group, tap]
        if not changes:
            break
    return found
