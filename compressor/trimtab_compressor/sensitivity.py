"""What quantizing each layer alone costs, by the runtime: the layers to keep in float come first.

    SQNR = 10 log10( sum |y|^2 / sum |y - y_q|^2 )    over all outputs, in dB

Rules:
    1. Where labels are given, accuracy that is lost ranks first; but a drop that two standard errors
       of the changed answers explain is counted as none: with few samples it is chance.
    2. Layers that are equal by that are ranked by SQNR, the smallest first.
    3. Arithmetic is the file's own, not that of this CPU's kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab_compressor.agreement import top1_accuracy
from trimtab_compressor.arrays import AnyArray, IntArray
from trimtab_compressor.evaluate import run_file
from trimtab_compressor.layers.table import open_layers
from trimtab_compressor.passes.quantize_one import open_quantize_one
from trimtab_compressor.runtimes.port import Arrays, Kernels
from trimtab_compressor.specs.quantization import QuantizeStatic
from trimtab_protocol.errors import ErrorCode, ModelError

Progress = Callable[[int, int, str], None]
"""(layers that are done, all layers, name of the next one)"""

STANDARD_ERRORS = 2.0
EXACT_DB = 200.0
"""SQNR of outputs that do not differ."""


@dataclass(frozen=True)
class LayerCost:
    """One layer, quantized alone.

    Args:
        layer: Its name.
        kind: See LayerKind.
        sqnr_db: Of the outputs.
        drop: Accuracy that is lost, 0 to 1, negative for a gain; None without labels.
        is_drop_certain: Whether it is more than chance.
    """

    layer: str
    kind: str
    sqnr_db: float
    drop: float | None = None
    is_drop_certain: bool = False


@dataclass(frozen=True)
class Sensitivity:
    """All layers of a file.

    Args:
        costs: From the most sensitive layer on.
        accuracy: Of the float file; None without labels.
        samples: That were run.
        left_in_float: Layers that the quantizer does not take.
    """

    costs: tuple[LayerCost, ...]
    accuracy: float | None
    samples: int
    left_in_float: tuple[str, ...]

    def names(self) -> tuple[str, ...]:
        """Layers from the most sensitive on, as `excluded` takes them."""
        return tuple(row.layer for row in self.costs)


def measure_sensitivity(
    path: Path,
    spec: QuantizeStatic,
    calibration: Arrays,
    inputs: Arrays,
    *,
    labels: IntArray | None = None,
    progress: Progress | None = None,
) -> Sensitivity:
    """Quantize each layer alone and run the file.

    Args:
        path: Float file.
        spec: How to quantize.
        calibration: By input name, (n, *input shape).
        inputs: To judge on, by input name, (m, *input shape).
        labels: (m,), of the first output; None to rank by SQNR.
        progress: See Progress.

    Raises:
        ModelError: The file cannot be read, or has no layer that can be quantized.
        ConfigError: Samples do not fit the model.
    """
    layers = open_layers(path).layers
    expected = run_file(path, inputs, Kernels.EXACT)
    costs, left = [], []
    with open_quantize_one(path, spec, calibration) as quantize:
        for done, layer in enumerate(layers):
            if progress is not None:
                progress(done, len(layers), layer.name)
            quantized = quantize(layer.name)
            if quantized is None:
                left.append(layer.name)
                continue
            found = run_file(quantized, inputs, Kernels.EXACT)
            costs.append(judge_layer(layer.name, layer.kind.value, found, expected, labels))
    if not costs:
        raise ModelError(
            f"{path} has no layer that can be quantized", code=ErrorCode.MODEL_UNREADABLE
        )
    accuracy = None if labels is None else top1_accuracy(expected[0], labels)
    return Sensitivity(rank(costs), accuracy, len(expected[0]), tuple(left))


def judge_layer(
    name: str,
    kind: str,
    found: Sequence[AnyArray],
    expected: Sequence[AnyArray],
    labels: IntArray | None,
) -> LayerCost:
    """Compare the outputs of two files, the first (n, classes) where there are labels. Pure."""
    sqnr_db = measure_sqnr(found, expected)
    if labels is None:
        return LayerCost(name, kind, sqnr_db)
    right = expected[0].argmax(axis=-1) == labels
    still = found[0].argmax(axis=-1) == labels
    drop = float(right.mean() - still.mean())
    error = math.sqrt(int((right != still).sum())) / len(labels)
    return LayerCost(name, kind, sqnr_db, drop, abs(drop) > STANDARD_ERRORS * error)


def measure_sqnr(found: Sequence[AnyArray], expected: Sequence[AnyArray]) -> float:
    """Signal to quantization noise of all outputs together, in dB, at most EXACT_DB."""
    signal = sum(float(np.square(rows.astype(np.float64)).sum()) for rows in expected)
    noise = sum(
        float(np.square(after.astype(np.float64) - before).sum())
        for after, before in zip(found, expected, strict=True)
    )
    if noise == 0:
        return EXACT_DB
    return min(EXACT_DB, 10 * math.log10(max(signal, 1e-30) / noise))


def rank(costs: Sequence[LayerCost]) -> tuple[LayerCost, ...]:
    """The most sensitive layer first."""

    def key(row: LayerCost) -> tuple[float, float]:
        lost = row.drop if row.drop is not None and row.is_drop_certain else 0.0
        return -lost, row.sqnr_db

    return tuple(sorted(costs, key=key))
