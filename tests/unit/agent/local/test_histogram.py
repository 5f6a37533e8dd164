"""Buckets of equal ratio."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_agent.local.histogram import (
    FIRST_MS,
    LAST_BUCKET,
    RATIO,
    RESOLUTION_RATIO,
    Histogram,
    bucket_of,
    middle_ms,
)


@given(st.floats(min_value=FIRST_MS, max_value=1e6))
def test_the_middle_of_a_bucket_is_within_the_stated_resolution(latency_ms: float) -> None:
    found_ms = middle_ms(bucket_of(latency_ms))
    assert latency_ms / (1 + RESOLUTION_RATIO + 1e-9) <= found_ms
    assert found_ms <= latency_ms * (1 + RESOLUTION_RATIO + 1e-9)


def test_the_resolution_is_what_the_docs_say() -> None:
    assert round(RESOLUTION_RATIO * 100, 2) == 4.43
    assert round((RATIO - 1) * 100, 2) == 9.05


@pytest.mark.parametrize(
    ("latency_ms", "bucket"), [(0, 0), (1e-9, 0), (0.001, 0), (1e12, LAST_BUCKET)]
)
def test_what_is_outside_the_range_goes_to_the_nearest_bucket(
    latency_ms: float, bucket: int
) -> None:
    assert bucket_of(latency_ms) == bucket


@pytest.mark.parametrize("latency_ms", [-0.1, math.nan, math.inf])
def test_what_is_no_latency_is_refused_and_nothing_of_it_counted(latency_ms: float) -> None:
    histogram = Histogram()
    with pytest.raises(ValueError, match="number of milliseconds"):
        histogram.add([1.0, latency_ms])
    assert histogram.total == 0


@pytest.mark.parametrize("counts", [{-1: 1}, {LAST_BUCKET + 1: 1}, {3: 0}, {3: -5}])
def test_counts_of_no_bucket_are_refused_and_nothing_of_them_counted(
    counts: dict[int, int],
) -> None:
    histogram = Histogram()
    with pytest.raises(ValueError, match="buckets go from"):
        histogram.merge({5: 1} | counts)
    assert histogram.total == 0


@given(st.lists(st.floats(min_value=0.01, max_value=1e5), min_size=10, max_size=200))
def test_percentiles_are_those_of_the_sorted_list_to_the_resolution(values: list[float]) -> None:
    histogram = Histogram()
    histogram.add(values)
    for share in (0.5, 0.9):
        exact_ms = sorted(values)[math.ceil(share * len(values)) - 1]
        found_ms = histogram.percentile_ms(share)
        assert found_ms == pytest.approx(exact_ms, rel=RESOLUTION_RATIO + 1e-9)


@pytest.mark.parametrize(("share", "enough"), [(0.5, 2), (0.9, 10)])
def test_a_percentile_that_too_few_latencies_support_is_absent(share: float, enough: int) -> None:
    histogram = Histogram()
    histogram.add([5.0] * (enough - 1))
    assert histogram.percentile_ms(share) is None
    histogram.add([5.0])
    assert histogram.percentile_ms(share) is not None


def test_what_was_taken_merges_elsewhere_and_is_gone_here() -> None:
    here, there = Histogram(), Histogram()
    here.add([1.0, 1.0, 50.0])
    there.merge(here.take())
    assert (here.total, there.total) == (0, 3)
    assert there.percentile_ms(0.5) == pytest.approx(1.0, rel=RESOLUTION_RATIO)


@pytest.mark.parametrize("total", [0, 1, 50, 99])
def test_bounds_that_too_few_latencies_support_are_absent(total: int) -> None:
    histogram = Histogram()
    histogram.add([5.0] * total)
    assert histogram.percentile_bounds_ms(0.9) is None


def test_bounds_of_alike_latencies_are_the_edges_of_their_bucket() -> None:
    histogram = Histogram()
    histogram.add([5.0] * 100)
    bounds_ms = histogram.percentile_bounds_ms(0.9)
    assert bounds_ms is not None
    low_ms, high_ms = bounds_ms
    assert low_ms <= 5.0 <= high_ms
    assert high_ms / low_ms == pytest.approx(RATIO)


def test_the_true_p90_lies_within_the_bounds() -> None:
    """Of 2,000 samples of a known distribution; by chance a few may miss."""
    source, true_ms, missed = random.Random(4), math.exp(1.2815515594), 0
    for _ in range(2000):
        histogram = Histogram()
        histogram.add([source.lognormvariate(0, 1) for _ in range(200)])
        bounds_ms = histogram.percentile_bounds_ms(0.9)
        assert bounds_ms is not None
        missed += not bounds_ms[0] <= true_ms <= bounds_ms[1]
    assert missed <= 10
