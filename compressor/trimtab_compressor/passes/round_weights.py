"""Learned rounding of all layers, one behind the other, on any layer graph.

Each layer learns (see layers/rounding.py) on what really reaches it once all layers before it are
rounded, toward what it gives in the float network; then its bias takes the mean error that is left.
The result is a float file whose weights lie on the grid of the quantizer after it, which therefore
leaves them as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from trimtab_compressor.arrays import FloatArray
from trimtab_compressor.layers.port import Layer, LayerGraph, Samples, Update, Updates
from trimtab_compressor.layers.rounding import Learning, Rounded, learn_rounding
from trimtab_compressor.layers.table import open_layers
from trimtab_compressor.layers.windows import mean_window, multiply, pick_windows
from trimtab_compressor.passes.correct_bias import shift_of, shifted_bias
from trimtab_compressor.passes.grid_stage import check_excluded, grid_of, limit_samples
from trimtab_compressor.passes.stage import FileStage, Findings
from trimtab_compressor.specs.rescue import RoundWeights


@dataclass(frozen=True, eq=False)
class _Seen:
    """What reaches a layer.

    Args:
        windows: (rows, groups, k), at some places.
        mean: (groups, k), over all places.
    """

    windows: FloatArray
    mean: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Wanted:
    """What a layer does in the float network.

    Args:
        outputs: (rows, out), before the function behind.
        mean: Of its windows, (groups, k).
    """

    outputs: FloatArray
    mean: NDArray[np.float64]


def round_weights(stage: FileStage[RoundWeights]) -> Findings:
    """Write the file with weights on the grid.

    Raises:
        ConfigError: An excluded layer does not exist, or the format has no such grid.
        ModelError: The file cannot be read or does not run.
    """
    spec, graph = stage.spec, open_layers(stage.source)
    check_excluded(spec, graph)
    grid, samples = grid_of(stage), limit_samples(stage.calibration, spec.samples)
    learning = Learning(spec.iterations, spec.learning_rate)
    wanted = _watch_float(graph, samples, spec)
    updates: dict[str, Update] = {}
    ratios = []
    for layer in graph.layers:
        seen = _watch(graph, layer, samples, spec, updates)
        rounded = Rounded(layer.weight, 1.0)
        if layer.name not in spec.excluded:
            target = wanted[layer.name].outputs
            rounded = learn_rounding(layer, grid, seen.windows, target, learning)
            ratios.append(rounded.error_ratio)
        update = Update(rounded.weight)
        if spec.is_bias_corrected:
            shift = shift_of(layer, rounded.weight, seen.mean, wanted[layer.name].mean)
            update = replace(update, bias=shifted_bias(layer, shift))
        updates[layer.name] = update
    graph.write(updates, stage.target)
    return {
        "layers": len(ratios),
        "learned": sum(ratio < 1 for ratio in ratios),
        "median_error_ratio": round(median(ratios), 4) if ratios else None,
    }


def _watch_float(graph: LayerGraph, samples: Samples, spec: RoundWeights) -> dict[str, _Wanted]:
    """One run of the float network for all layers; only outputs are kept, for their size."""
    parts: dict[str, list[FloatArray]] = {layer.name: [] for layer in graph.layers}
    means = {layer.name: np.zeros(()) for layer in graph.layers}
    first = 0
    tensors = sorted({layer.input for layer in graph.layers})
    for batch in graph.capture(tensors, samples, {}) if tensors else ():
        for layer in graph.layers:
            seen = _look(layer, batch[layer.input], samples, spec, first)
            outputs = multiply(layer, layer.weight, seen.windows)
            parts[layer.name].append(outputs if layer.bias is None else outputs + layer.bias)
            means[layer.name] = means[layer.name] + seen.mean * len(batch[layer.input])
        first += len(batch[tensors[0]])
    return {
        name: _Wanted(np.concatenate(rows), means[name] / first) for name, rows in parts.items()
    }


def _watch(
    graph: LayerGraph, layer: Layer, samples: Samples, spec: RoundWeights, updates: Updates
) -> _Seen:
    """What reaches one layer behind the updated ones, at the same places."""
    found: list[_Seen] = []
    sizes: list[int] = []
    for batch in graph.capture([layer.input], samples, updates):
        activation = batch[layer.input]
        found.append(_look(layer, activation, samples, spec, sum(sizes)))
        sizes.append(len(activation))
    mean = sum(seen.mean * size for seen, size in zip(found, sizes, strict=True)) / sum(sizes)
    return _Seen(np.concatenate([seen.windows for seen in found]), np.asarray(mean))


def _look(
    layer: Layer, activation: FloatArray, samples: Samples, spec: RoundWeights, first: int
) -> _Seen:
    per_sample = math.ceil(spec.rows / len(next(iter(samples.values()))))
    windows = pick_windows(layer, activation, per_sample, first)
    return _Seen(windows, mean_window(layer, activation))
