"""Calibrators on numbers that can be checked by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.passes.ranges import (
    BINS,
    DECAY,
    clip_range,
    cut_tails,
    find_ranges,
    measure_divergence,
)
from trimtab_compressor.specs.quantization import Calibrator
from trimtab_protocol.errors import ModelError


def batches_of(*rows: AnyArray) -> Iterator[Mapping[str, AnyArray]]:
    yield from ({"x": row} for row in rows)


def test_minmax_keeps_the_farthest_values_of_all_batches() -> None:
    first, second = np.array([[1.0, 2.0]]), np.array([[-3.0, 0.5], [0.0, 9.0]])
    found = find_ranges(lambda: batches_of(first, second), "minmax", 100)
    assert found == {"x": (-3.0, 9.0)}


def test_a_moving_average_follows_each_sample_however_they_are_batched() -> None:
    samples = np.array([[0.0, 1.0], [0.0, 3.0], [-1.0, 2.0]])
    together = find_ranges(lambda: batches_of(samples), "moving_average", 100)
    alone = find_ranges(lambda: batches_of(*samples[:, None]), "moving_average", 100)
    high = DECAY * (DECAY * 1.0 + (1 - DECAY) * 3.0) + (1 - DECAY) * 2.0
    assert together["x"] == pytest.approx((-(1 - DECAY), high))
    assert alone == together


@pytest.mark.parametrize("percentile", [99.0, 90.0])
def test_a_percentile_leaves_half_of_the_rest_out_on_each_side(percentile: float) -> None:
    values = np.linspace(-1, 1, 100_001)[None]
    low, high = find_ranges(lambda: batches_of(values), "percentile", percentile)["x"]
    width = 2 / BINS
    assert low == pytest.approx(-percentile / 100, abs=2 * width)
    assert high == pytest.approx(percentile / 100, abs=2 * width)


def test_all_of_the_values_are_the_whole_range() -> None:
    counts = np.array([1, 0, 5, 0, 1])
    assert cut_tails(counts, (0.0, 5.0), 100) == (0.0, 5.0)
    assert cut_tails(counts, (0.0, 5.0), 60) == (2.0, 3.0)


def test_entropy_cuts_a_lonely_outlier_and_keeps_an_even_spread() -> None:
    random = np.random.default_rng(0)
    body = np.abs(random.normal(0, 1, 200_000))
    found = find_ranges(lambda: batches_of(np.append(body, 100.0)[None]), "entropy", 100)
    assert found["x"][1] < 50
    even = np.linspace(0, 1, 200_001)[None]
    assert find_ranges(lambda: batches_of(even), "entropy", 100)["x"] == (0.0, 1.0)


def test_both_signs_are_clipped_at_the_same_magnitude() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[:400] = 100_000 * np.exp(-np.arange(400) / 60)
    counts[-1] = 1
    low, high = clip_range(counts, (-10.0, 4.0), 256)
    assert low == -high
    assert high < 4.0


def test_a_distribution_that_fits_its_steps_is_no_distance_from_itself() -> None:
    counts = np.zeros(BINS, np.int64)
    counts[:128] = np.arange(1, 129)
    assert measure_divergence(counts, 128, 128) == pytest.approx(0.0, abs=1e-9)
    assert measure_divergence(counts, 128, 32) > 0


@pytest.mark.parametrize("calibrator", ["minmax", "moving_average", "percentile", "entropy"])
def test_a_constant_keeps_its_value(calibrator: Calibrator) -> None:
    assert find_ranges(lambda: batches_of(np.full((2, 3), 2.0)), calibrator, 99.9) == {
        "x": (2.0, 2.0)
    }


def test_an_activation_that_is_not_finite_is_named() -> None:
    with pytest.raises(ModelError, match="activation 'x' is NaN or infinite"):
        find_ranges(lambda: batches_of(np.array([[1.0, np.nan]])), "minmax", 100)
