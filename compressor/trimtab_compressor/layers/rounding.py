"""Learn to round one layer's weights: AdaRound.

Nearest rounding is the best for each weight alone, not for what a layer computes. With n = floor(w /
step) and a variable v per weight, the soft weight is

    step * clip(n + h(v), -end, end),    h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1)

and v minimises, on inputs x' of the quantized-so-far network and outputs of the float network,

    mean |f(W x + b) - f(W_soft x' + b)|^2  +  lambda sum(1 - |2 h(v) - 1|^beta)

where f is the function behind the layer, and beta falls from 20 to 2, so that h first moves freely
and then settles at 0 or 1 (Nagel, Amjad, van Baalen, Louizos and Blankevoort, "Up or Down? Adaptive
Rounding for Post-Training Quantization", ICML 2020, equations 21 to 25). No weight serves two output
channels, so each channel is a problem of its own: here the first term is divided by what nearest
rounding gives in that channel, and lambda by the number of its weights, so that one lambda serves
channels of any size and scale.

The gradient is written out and taken in numpy: a layer is small, and an automatic one costs several
times more than the products themselves.

Rules beyond the paper:
    1. The largest weight of each step stays at the end of the grid, or the quantizer would find
       another step; a zero stays zero, so that a pruned weight stays pruned.
    2. What was learned is polished on its integers (see descent.py).
    3. Rows that were kept aside choose, channel by channel, between nearest, learned and polished.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from trimtab_compressor.arrays import AnyArray, FloatArray
from trimtab_compressor.layers.descent import descend
from trimtab_compressor.layers.grid import WeightGrid
from trimtab_compressor.layers.port import Layer

Rows: TypeAlias = slice

STRETCH_LOW, STRETCH_HIGH = -0.1, 1.1
SPREAD = STRETCH_HIGH - STRETCH_LOW
BETA_FIRST, BETA_LAST = 20.0, 2.0
FREE_SHARE = 0.2
"""Of the iterations, at the beginning, without the term that settles h."""
REGULARITY = 3.0
"""lambda, of all weights of one channel together."""
BATCH_ROWS = 256
JUDGED_SHARE = 0.2


@dataclass(frozen=True)
class Learning:
    """How long and how fast."""

    iterations: int
    learning_rate: float
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Rounded:
    """Result of learn_rounding.

    Args:
        weight: On the grid.
        error_ratio: Error on the rows kept aside, relative to nearest rounding's.
    """

    weight: FloatArray
    error_ratio: float


def learn_rounding(
    layer: Layer, grid: WeightGrid, windows: FloatArray, wanted: FloatArray, learning: Learning
) -> Rounded:
    """Round a layer's weights so that its outputs stay.

    Args:
        layer: With its float weight and the bias to use.
        grid: Of the quantizer.
        windows: (rows, groups, k): inputs of the quantized-so-far network, sample by sample.
        wanted: (rows, out): the float layer's output at the same places, before the function behind.
        learning: See Learning.
    """
    problem = _Problem(layer, grid, windows, wanted, learning.seed)
    nearest = problem.errors(problem.judged, problem.nearest)
    best, errors = problem.nearest, nearest
    learned = _learn(problem, learning)
    for candidate in (learned, problem.polish(learned)):
        found = problem.errors(problem.judged, candidate)
        best = np.where((found < errors)[:, :, None], candidate, best)
        errors = np.minimum(found, errors)
    integers = best.astype(np.float64).reshape(layer.weight.shape)
    total = float(nearest.sum())
    ratio = float(errors.sum()) / total if total > 0 else 1.0
    return Rounded(grid.place(integers, grid.steps(layer.weight)), ratio)


class _Problem:
    """One layer's numbers, by group: weights (g, o, k) in steps, windows (g, rows, k)."""

    def __init__(
        self, layer: Layer, grid: WeightGrid, windows: FloatArray, wanted: FloatArray, seed: int
    ) -> None:
        rows, groups, taps = windows.shape
        steps = grid.steps(layer.weight)
        self.bounds = layer.bounds
        self.end = np.float32(grid.end)
        self.steps = steps.reshape(groups, -1, 1).astype(np.float32)
        self.scaled = (layer.weight / steps).reshape(groups, -1, taps).astype(np.float32)
        self.nearest = np.clip(np.rint(self.scaled), -self.end, self.end)
        self.is_fixed = (np.abs(self.scaled) > self.end - 1e-3) | (self.scaled == 0)
        bias = np.zeros(layer.outputs, np.float32) if layer.bias is None else layer.bias
        self.bias = bias.reshape(groups, 1, -1)
        learned = max(1, round(rows * (1 - JUDGED_SHARE)))
        order = np.arange(rows)
        np.random.default_rng(seed).shuffle(order[:learned])  # a batch is then a plain slice
        self.learned = Rows(0, learned)
        self.judged = Rows(learned if learned < rows else 0, rows)
        self.windows = np.ascontiguousarray(windows[order].transpose(1, 0, 2))
        outputs = wanted[order].reshape(rows, groups, -1).transpose(1, 0, 2)
        self.before = np.ascontiguousarray(outputs)
        self.wanted = np.clip(self.before, *self.bounds)

    def outputs(self, rows: Rows, integers: FloatArray) -> FloatArray:
        """Before the function behind: (g, rows, o)."""
        weight = (integers * self.steps).transpose(0, 2, 1)
        return np.asarray(np.matmul(self.windows[:, rows], weight) + self.bias)

    def errors(self, rows: Rows, integers: FloatArray) -> FloatArray:
        """Mean squared difference of each channel: (g, o)."""
        missed = np.clip(self.outputs(rows, integers), *self.bounds) - self.wanted[:, rows]
        return np.asarray(np.square(missed).mean(axis=1))

    def slope(self, rows: Rows, integers: FloatArray) -> FloatArray:
        """Derivative of a channel's error by each of its integers: (g, o, k)."""
        outputs = self.outputs(rows, integers)
        low, high = self.bounds
        missed = np.clip(outputs, low, high) - self.wanted[:, rows]
        missed *= (outputs > low) & (outputs < high)
        product = np.matmul(missed.transpose(0, 2, 1), self.windows[:, rows])
        return np.asarray(product * (self.steps * (2 / missed.shape[1])))

    def polish(self, integers: FloatArray) -> FloatArray:
        """Better integers for the outputs before the function behind."""
        floor = np.floor(self.scaled)
        target = (self.before - self.bias)[:, self.learned] / self.steps.transpose(0, 2, 1)
        low = self.soften(floor, np.zeros_like(floor))
        high = self.soften(floor, np.ones_like(floor))
        return descend(integers, low, high, self.windows[:, self.learned], target)

    def soften(self, floor: FloatArray, up: FloatArray) -> FloatArray:
        """Integers between two points of the grid; fixed ones stay."""
        return np.where(self.is_fixed, self.nearest, np.clip(floor + up, -self.end, self.end))


class _Adam:
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015."""

    def __init__(self, like: FloatArray, rate: float) -> None:
        self._first, self._second = np.zeros_like(like), np.zeros_like(like)
        self._rate, self._count = rate, 0

    def step(self, variable: FloatArray, slope: FloatArray) -> None:
        """Move the variable in place."""
        self._count += 1
        self._first += 0.1 * (slope - self._first)
        self._second += 0.001 * (slope * slope - self._second)
        size = self._rate * np.sqrt(1 - 0.999**self._count) / (1 - 0.9**self._count)
        variable -= np.float32(size) * self._first / (np.sqrt(self._second) + np.float32(1e-8))


def _learn(problem: _Problem, learning: Learning) -> FloatArray:
    """The integers that learning ends at."""
    floor = np.floor(problem.scaled)
    share = np.clip((problem.scaled - floor - STRETCH_LOW) / SPREAD, 1e-3, 1 - 1e-3)
    variable = np.log(share / (1 - share))  # so that at first h is what the weight has
    adam = _Adam(variable, learning.learning_rate)
    unit = problem.errors(problem.learned, problem.nearest)[:, :, None]
    unit = np.maximum(unit, 1e-3 * unit.mean() + np.float32(1e-30))
    pull = REGULARITY / variable.shape[2]
    free = int(learning.iterations * FREE_SHARE)
    for step in range(learning.iterations):
        rows = _batch(step, problem.learned.stop)
        gate = 1 / (1 + np.exp(-variable))
        up = np.clip(gate * SPREAD + STRETCH_LOW, 0, 1)
        slope = problem.slope(rows, problem.soften(floor, up)) / unit
        if step >= free:
            progress = (step - free) / max(1, learning.iterations - free)
            slope += _settle(up, BETA_LAST + (BETA_FIRST - BETA_LAST) * (1 - progress), pull)
        is_inside = (up > 0) & (up < 1) & ~problem.is_fixed
        adam.step(variable, slope * (gate * (1 - gate)) * (SPREAD * is_inside))
    return problem.soften(floor, (variable >= 0).astype(np.float32))


def _batch(step: int, rows: int) -> Rows:
    """The rows of one step: slices, one behind the other."""
    batches = max(1, rows // BATCH_ROWS)
    start = (step % batches) * BATCH_ROWS
    return Rows(start, min(start + BATCH_ROWS, rows))


def _settle(up: AnyArray, beta: float, pull: float) -> FloatArray:
    """Derivative of pull * (1 - |2 h - 1|^beta) by h."""
    away = 2 * up - 1
    power = np.abs(away) ** np.float32(beta - 1)
    return np.asarray(np.copysign(power, away) * np.float32(-2 * beta * pull))
