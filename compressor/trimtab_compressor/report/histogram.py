"""Histograms over shared bins, and signal over noise. Pure."""

from __future__ import annotations

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.report.card import Histogram

BINS = 61


def pair_histograms(before: AnyArray, after: AnyArray) -> tuple[Histogram, Histogram]:
    """Both over the range of both, so that they can be laid over each other."""
    flat = [np.asarray(rows, np.float64).reshape(-1) for rows in (before, after)]
    low = float(min(rows.min() for rows in flat))
    high = float(max(rows.max() for rows in flat))
    if low == high:
        low, high = low - 0.5, high + 0.5
    one, other = (_shares(rows, low, high) for rows in flat)
    return one, other


def _shares(rows: AnyArray, low: float, high: float) -> Histogram:
    counts, _ = np.histogram(rows, bins=BINS, range=(low, high))
    return Histogram(low=low, high=high, shares=tuple(float(row) for row in counts / len(rows)))
