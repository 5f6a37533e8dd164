"""Calibrators: from the activations that were seen to the ranges that integers will span. Pure.

minmax          [min x, max x] over all samples. Nothing is clipped; one outlier widens every step.
moving_average  each sample's min and max, averaged: r <- d r + (1 - d) min x (Jacob et al.,
                "Quantization and Training of Neural Networks for Efficient
                Integer-Arithmetic-Only Inference", CVPR 2018, section 3.1).
percentile      the range that holds p percent of the values, half of the rest left out on each side
                (McKinstry et al., "Discovering Low-precision Networks Close to Full-precision
                Networks for Efficient Embedded Inference", 2018; Wu et al., "Integer Quantization for
                Deep Learning Inference", 2020, section 3.2).
entropy         the clip T for which the distribution of |x| and its quantized form are nearest in
                Kullback-Leibler divergence (Migacz, "8-bit Inference with TensorRT", GTC 2017).

The last two look at a histogram, which needs the range first, so they run the samples twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.specs.quantization import Calibrator
from trimtab_protocol.errors import ModelError

BINS = 2048
DECAY = 0.95
"""Of the moving average, per sample; AI Edge Quantizer's own."""
CLIP_STEP = 16
"""Clips are tried at every so many bins: 1/128 of the largest value."""

Range: TypeAlias = "tuple[float, float]"
Batches: TypeAlias = "Callable[[], Iterator[Mapping[str, AnyArray]]]"
"""Runs all samples anew and gives named activations, batch by batch."""
Histogram: TypeAlias = "NDArray[np.int64]"


@dataclass
class _Seen:
    """What one activation showed so far."""

    low: float
    high: float
    average_low: float
    average_high: float


def find_ranges(
    batches: Batches, calibrator: Calibrator, percentile: float, levels: int = 256
) -> dict[str, Range]:
    """Give each activation a range.

    Args:
        batches: See Batches; float arrays, samples first.
        calibrator: See above.
        percentile: In (0, 100]; for "percentile".
        levels: Of the integers.

    Returns:
        By name, (low, high) in the activation's unit; low <= high.

    Raises:
        ModelError: An activation is not finite, so no integer can stand for it.
    """
    seen = _see(batches)
    if calibrator == "minmax":
        return {name: (row.low, row.high) for name, row in seen.items()}
    if calibrator == "moving_average":
        return {name: (row.average_low, row.average_high) for name, row in seen.items()}
    widest = {name: (row.low, row.high) for name, row in seen.items() if row.low < row.high}
    if calibrator == "percentile":
        counts = _count(batches, widest, magnitudes=False)
        chosen = {name: cut_tails(counts[name], row, percentile) for name, row in widest.items()}
    else:
        counts = _count(batches, widest, magnitudes=True)
        chosen = {name: clip_range(counts[name], row, levels) for name, row in widest.items()}
    return {name: chosen.get(name, (row.low, row.high)) for name, row in seen.items()}


def cut_tails(counts: Histogram, widest: Range, percentile: float) -> Range:
    """The range that holds `percentile` of the values, at the edges of bins.

    Args:
        counts: Of equal bins over `widest`, (BINS,).
        widest: (low, high), low < high.
        percentile: In (0, 100].
    """
    tail = (1 - percentile / 100) / 2 * counts.sum()
    below = np.concatenate([[0], np.cumsum(counts)])  # values left of each edge
    first = int(np.flatnonzero(below <= tail)[-1])
    last = int(np.flatnonzero(below >= counts.sum() - tail)[0])
    edges = np.linspace(*widest, len(counts) + 1)
    return float(edges[first]), float(edges[max(last, first + 1)])


def clip_range(counts: Histogram, widest: Range, levels: int) -> Range:
    """The range cut at the clip of least divergence.

    Args:
        counts: Of |x| in equal bins from 0 to the largest magnitude, exact zeros left out: (BINS,).
        widest: (low, high), low < high.
        levels: Of the integers; half of them where values have both signs.
    """
    low, high = widest
    largest = max(abs(low), abs(high))
    steps = levels if low >= 0 or high <= 0 else levels // 2
    ends = range(len(counts), steps - 1, -CLIP_STEP)  # the widest first, which a tie keeps
    best = min(ends, key=lambda end: measure_divergence(counts, end, steps))
    clip = largest * best / len(counts)
    return max(low, -clip), min(high, clip)


def measure_divergence(counts: Histogram, end: int, steps: int) -> float:
    """D(P || Q) of the clipped distribution P and its quantized form Q.

    Args:
        counts: See clip_range.
        end: Bins that are kept; what lies behind is clipped into the last of them.
        steps: Integers over the kept bins.
    """
    kept = counts[:end].astype(np.float64)
    reference = kept.copy()
    reference[-1] += counts[end:].sum()
    group = np.arange(end) * steps // end
    is_used = reference > 0
    sums = np.bincount(group, kept, steps)
    used = np.bincount(group, is_used, steps)
    quantized = np.where(is_used, (sums / np.maximum(used, 1))[group], 0)
    total, rounded = reference.sum(), quantized.sum()
    if total == 0 or rounded == 0:
        return float("inf")
    p = reference[is_used] / total
    q = np.maximum(quantized[is_used] / rounded, 1e-12)
    return float((p * np.log(p / q)).sum())


def _see(batches: Batches) -> dict[str, _Seen]:
    found: dict[str, _Seen] = {}
    for batch in batches():
        for name, rows in batch.items():
            flat = rows.reshape(len(rows), -1) if rows.ndim else rows.reshape(1, 1)
            if not flat.size:
                continue
            lows, highs = flat.min(axis=1).astype(float), flat.max(axis=1).astype(float)
            if not (np.isfinite(lows).all() and np.isfinite(highs).all()):
                raise ModelError(
                    f"activation '{name}' is NaN or infinite for a calibration sample; look at the "
                    "samples, or exclude its layer"
                )
            row = found.setdefault(name, _Seen(lows[0], highs[0], lows[0], highs[0]))
            row.low, row.high = min(row.low, lows.min()), max(row.high, highs.max())
            for low, high in zip(lows, highs, strict=True):
                row.average_low = DECAY * row.average_low + (1 - DECAY) * low
                row.average_high = DECAY * row.average_high + (1 - DECAY) * high
    return found


def _count(
    batches: Batches, widest: Mapping[str, Range], *, magnitudes: bool
) -> dict[str, Histogram]:
    counts = {name: np.zeros(BINS, np.int64) for name in widest}
    for batch in batches():
        for name, (low, high) in widest.items():
            values = batch[name].ravel()
            if magnitudes:
                values = np.abs(values[values != 0])  # zero is exact whatever the clip
                low, high = 0.0, max(abs(low), abs(high))  # noqa: PLW2901 - of magnitudes now
            counts[name] += np.histogram(values, BINS, (low, high))[0]
    return counts
