"""Cross-layer equalization, on any layer graph.

Where a layer feeds another through functions that let a positive factor pass, f(s x) = s f(x), the
network does not change when output channel i of the first is divided by s_i and what the second
reads from it is multiplied by s_i. With r1_i and r2_i the largest weights on both sides,

    s_i = sqrt(r1_i / r2_i)    makes both    sqrt(r1_i r2_i)

(Nagel, van Baalen, Blankevoort and Welling, "Data-Free Quantization Through Weight Equalization and
Bias Correction", ICCV 2019, equation 11). Pairs share layers, so this repeats until no factor moves.

A ReLU6 lets a factor pass only while nothing reaches its limit, before or after. With m_i the largest
calibration value of the channel times a margin, that holds if m_i < 6 and m_i / s_i < 6; so s_i is
kept above m_i / 6, and at 1 where m_i reaches 6. (The paper replaces ReLU6 by ReLU instead, which
changes every channel that does reach it.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab_compressor.agreement import check_agreement, compare_outputs
from trimtab_compressor.layers.port import Layer, LayerGraph, Pair, Samples, Update
from trimtab_compressor.layers.table import open_layers
from trimtab_compressor.passes.stage import FileStage, Findings
from trimtab_compressor.runtimes.port import Kernels, fit_samples, run_all
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.specs.rescue import Equalize
from trimtab_protocol.errors import ErrorCode, ModelError

Factors = NDArray[np.float64]

MAX_ROUNDS = 100
SETTLED = 1e-3
"""A round in which no factor moves by more than this share is the last."""

CHECKED_SAMPLES = 32
MIN_FACTOR, MAX_FACTOR = 1e-4, 1e4
"""Factors stay within these, so that a channel of nearly zero weights keeps normal floats."""


@dataclass(frozen=True)
class Equalized:
    """Result of equalize_layers.

    Args:
        updates: New weights and biases by layer.
        rounds: Until no factor moved any more.
        spread_before: How far ranges differ within a layer: the largest ratio of the largest to the
            median output channel's range, of all paired layers.
        spread_after: The same, after.
    """

    updates: dict[str, Update]
    rounds: int
    spread_before: float
    spread_after: float


def equalize(stage: FileStage[Equalize]) -> Findings:
    """Write the file with equalized layers.

    Raises:
        ModelError: The file cannot be read, or the result does not compute the same on the runtime.
    """
    graph = open_layers(stage.source)
    pairs = [pair for pair in graph.pairs if pair.clip is None or stage.spec.clip == "measured"]
    lowest = measure_headroom(graph, pairs, stage.calibration, stage.spec.margin)
    found = equalize_layers(graph.layers, pairs, lowest)
    graph.write(found.updates, stage.target)
    error = _check_same(stage.source, stage.target, stage.calibration)
    return {
        "pairs": len(pairs),
        "rounds": found.rounds,
        "spread_before": round(found.spread_before, 2),
        "spread_after": round(found.spread_after, 2),
        "max_error_ratio": float(f"{error:.2g}"),
    }


def measure_headroom(
    graph: LayerGraph, pairs: Sequence[Pair], samples: Samples, margin: float
) -> dict[str, Factors]:
    """The smallest factor of each channel in front of a clip; 1 where the clip is reached.

    Returns:
        By the name of the pair's first layer, (channels,).
    """
    clips = {pair.first: pair.clip for pair in pairs if pair.clip is not None}
    if not clips:
        return {}
    largest: dict[str, Factors] = {}
    for batch in graph.capture([clip.tensor for clip in clips.values()], samples, {}):
        for name, clip in clips.items():
            rows = batch[clip.tensor]
            others = tuple(axis for axis in range(rows.ndim) if axis != clip.channel_axis)
            seen = rows.max(axis=others).astype(np.float64)
            largest[name] = np.maximum(largest.get(name, seen), seen)
    return {
        name: np.minimum(np.maximum(largest[name] * margin / clip.limit, 0.0), 1.0)
        for name, clip in clips.items()
    }


def equalize_layers(
    layers: Sequence[Layer], pairs: Sequence[Pair], lowest: Mapping[str, Factors]
) -> Equalized:
    """Find and apply the factors of all pairs. Pure.

    Args:
        layers: At least those of the pairs.
        pairs: Each layer is first of at most one and second of at most one.
        lowest: By first layer, what each factor must not go below; a channel with 1 keeps 1.
    """
    named = {layer.name: layer for layer in layers}
    touched = {name for pair in pairs for name in (pair.first, pair.second)}
    weights = {name: named[name].weight.astype(np.float64) for name in sorted(touched)}
    totals = {pair.first: np.ones(named[pair.first].outputs) for pair in pairs}
    before = _spread(weights)
    rounds, moved = 0, SETTLED
    while moved >= SETTLED and rounds < MAX_ROUNDS:
        moved = max((_balance(pair, named, weights, totals, lowest) for pair in pairs), default=0.0)
        rounds += 1
    updates = {name: Update(weight=rows.astype(np.float32)) for name, rows in weights.items()}
    for name, total in totals.items():
        bias = named[name].bias
        if bias is not None:
            updates[name] = Update(updates[name].weight, (bias / total).astype(np.float32))
    return Equalized(updates, rounds, before, _spread(weights))


def _balance(
    pair: Pair,
    named: Mapping[str, Layer],
    weights: dict[str, Factors],
    totals: dict[str, Factors],
    lowest: Mapping[str, Factors],
) -> float:
    """Move one pair's factors; how far the farthest moved."""
    first, second = weights[pair.first], weights[pair.second]
    groups = named[pair.second].groups
    out_range = np.abs(first).reshape(len(first), -1).max(axis=1)
    in_range = np.zeros(len(first))
    np.maximum.at(in_range, pair.channel_of_input, _input_ranges(second, groups))
    is_used = (out_range > 0) & (in_range > 0)
    wanted = np.sqrt(np.where(is_used, out_range, 1.0) / np.where(is_used, in_range, 1.0))
    before = totals[pair.first]
    after = np.clip(before * wanted, MIN_FACTOR, MAX_FACTOR)
    if pair.first in lowest:
        floor = lowest[pair.first]
        after = np.where(floor < 1, np.maximum(after, floor), 1.0)
    factor = after / before
    totals[pair.first] = after
    weights[pair.first] = first / factor.reshape(-1, *[1] * (first.ndim - 1))
    weights[pair.second] = _scale_inputs(second, groups, factor[pair.channel_of_input])
    return float(np.abs(np.log(factor)).max())


def _input_ranges(weight: Factors, groups: int) -> Factors:
    """Largest weight that each input is multiplied with: (out, in / groups, ...) -> (in,)."""
    grouped = np.abs(weight).reshape(groups, len(weight) // groups, weight.shape[1], -1)
    return np.asarray(grouped.max(axis=(1, 3))).reshape(-1)


def _scale_inputs(weight: Factors, groups: int, factors: Factors) -> Factors:
    grouped = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
    scaled = grouped * factors.reshape(groups, 1, weight.shape[1], 1)
    return np.asarray(scaled.reshape(weight.shape))


def _spread(weights: Mapping[str, Factors]) -> float:
    largest = 1.0
    for rows in weights.values():
        ranges = np.abs(rows).reshape(len(rows), -1).max(axis=1)
        median = float(np.median(ranges))
        if median > 0:
            largest = max(largest, float(ranges.max()) / median)
    return largest


def _check_same(source: Path, target: Path, samples: Samples) -> float:
    """Run both files; the largest difference relative to the range of the outputs."""
    outputs = []
    for path in (source, target):
        runner = open_model(path, Kernels.DEFAULT)
        given = fit_samples(runner.io, samples, what="calibration samples")
        few = {name: rows[:CHECKED_SAMPLES] for name, rows in given.items()}
        outputs.append(run_all(runner, few))
    worst = 0.0
    for before, after in zip(*(found.values() for found in outputs), strict=True):
        flat = [rows.reshape(len(rows), -1) for rows in (after, before)]
        agreement = compare_outputs(*flat)
        try:
            check_agreement(agreement, is_quantized=False)
        except ModelError as error:
            raise ModelError(
                f"equalize: {target.name} does not compute what {source.name} computes: "
                f"{error.message}; leave this pass out",
                code=ErrorCode.MODEL_GOLDEN,
            ) from error
        worst = max(worst, agreement.max_abs_error / max(agreement.value_range, 1e-12))
    return worst
