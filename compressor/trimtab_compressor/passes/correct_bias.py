"""Empirical bias correction, on any layer graph.

Rounded weights W_q shift the mean of a layer's output, and a shifted mean is felt by every layer
behind. With x the layer's input in the float network and x' its input in the quantized one,

    b' = b - (W_q E[x'] - W E[x])

(Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019,
section 4.2, with means measured on calibration samples as in its appendix). E[x] is taken over
samples and places, window by window, so zero padding and strides count as they are.

In sequence, x' comes from a network whose earlier layers are rounded and corrected already; else
x' is taken to be x. Activations stay float while this is measured.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trimtab_compressor.arrays import FloatArray
from trimtab_compressor.layers.port import Layer, LayerGraph, Samples, Update, Updates
from trimtab_compressor.layers.table import open_layers
from trimtab_compressor.layers.windows import mean_window
from trimtab_compressor.passes.grid_stage import check_excluded, grid_of, limit_samples
from trimtab_compressor.passes.stage import FileStage, Findings
from trimtab_compressor.specs.rescue import CorrectBias

Mean = NDArray[np.float64]


def correct_bias(stage: FileStage[CorrectBias]) -> Findings:
    """Write the file with corrected biases; its weights stay as they are.

    Raises:
        ConfigError: An excluded layer does not exist, or the format has no such grid.
        ModelError: The file cannot be read or does not run.
    """
    spec, graph = stage.spec, open_layers(stage.source)
    check_excluded(spec, graph)
    grid, samples = grid_of(stage), limit_samples(stage.calibration, spec.samples)
    expected = measure_means(graph, graph.layers, samples, {})
    rounded: dict[str, Update] = {}
    corrected: dict[str, Update] = {}
    shifts = []
    for layer in graph.layers:
        weight = layer.weight if layer.name in spec.excluded else grid.nearest(layer.weight)
        found = expected[layer.name]
        if spec.is_sequential and rounded:
            found = measure_means(graph, [layer], samples, rounded)[layer.name]
        shift = shift_of(layer, weight, found, expected[layer.name])
        bias = shifted_bias(layer, shift)
        rounded[layer.name] = Update(weight, bias)
        corrected[layer.name] = Update(bias=bias)
        shifts.append(float(np.abs(shift).max()))
    graph.write(corrected, stage.target)
    return {"layers": len(corrected), "largest_shift": float(f"{max(shifts, default=0.0):.3g}")}


def measure_means(
    graph: LayerGraph, layers: tuple[Layer, ...] | list[Layer], samples: Samples, updates: Updates
) -> dict[str, Mean]:
    """The mean window of each layer's input: by layer, (groups, k).

    Args:
        graph: The file.
        layers: Which to measure.
        samples: What runs.
        updates: What is in place.
    """
    totals: dict[str, Mean] = {}
    count = 0
    tensors = sorted({layer.input for layer in layers})
    for batch in graph.capture(tensors, samples, updates):
        size = len(batch[tensors[0]])
        count += size
        for layer in layers:
            mean = mean_window(layer, batch[layer.input]) * size
            totals[layer.name] = totals.get(layer.name, 0.0) + mean
    return {name: total / count for name, total in totals.items()}


def shift_of(layer: Layer, weight: FloatArray, found: Mean, expected: Mean) -> Mean:
    """By how much the mean output is off: (out,).

    Args:
        layer: With its float weight.
        weight: That takes its place.
        found: Mean window behind changed layers.
        expected: Mean window in the float network.
    """
    return _product(layer, weight, found) - _product(layer, layer.weight, expected)


def shifted_bias(layer: Layer, shift: Mean) -> FloatArray:
    """The bias that takes a shift back."""
    before = np.zeros(layer.outputs) if layer.bias is None else layer.bias
    return np.asarray(before - shift, np.float32)


def _product(layer: Layer, weight: FloatArray, mean: Mean) -> Mean:
    grouped = weight.astype(np.float64).reshape(layer.groups, -1, mean.shape[-1])
    return np.asarray(np.einsum("gok,gk->go", grouped, mean)).reshape(-1)
