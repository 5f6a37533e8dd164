"""[P-7.1] [P-7.2] [P-7.3] What a device found, and what a budget may see of it."""

from __future__ import annotations

from math import comb

import pytest
from pydantic import ValidationError

from support.factories import a_budget, a_measurement
from trimtab_protocol.budget import Metric, Outcome, judge
from trimtab_protocol.measurement import MIN_RUNS_FOR_PERCENTILE, MeasureSpec
from trimtab_protocol.reading import absent, known


def test_a_measurement_gives_a_reading_for_every_metric_of_a_budget() -> None:
    """[P-8.1]"""
    assert set(a_measurement().readings()) == set(Metric)


def test_each_metric_is_read_from_its_own_field() -> None:
    """[P-8.1]"""
    measurement = a_measurement(energy_mj=known(77.0), size_bytes=1234)
    found = measurement.readings(accuracy_drop=0.01)
    assert {metric: reading.value for metric, reading in found.items()} == {
        Metric.P50_MS: 10.0,
        Metric.P90_MS: 12.0,
        Metric.P95_MS: 13.0,
        Metric.P99_MS: 15.0,
        Metric.ENERGY_MJ: 77.0,
        Metric.PEAK_MEMORY_BYTES: 60_000_000.0,
        Metric.SIZE_BYTES: 1234.0,
        Metric.ACCURACY_DROP: 0.01,
    }


def test_an_accuracy_that_nobody_evaluated_is_absent_and_does_not_pass() -> None:
    """[P-7.1]"""
    found = a_measurement().readings()
    assert found[Metric.ACCURACY_DROP] == absent("not evaluated")
    assert judge(a_budget(accuracy_drop=1.0), found).outcome is Outcome.INCONCLUSIVE


def test_no_drop_of_accuracy_is_a_known_figure() -> None:
    """[P-7.1]"""
    assert a_measurement().readings(accuracy_drop=0.0)[Metric.ACCURACY_DROP] == known(0.0)


def _chance_of_at_most_one_over(runs: int, percentile: int) -> float:
    over = 1.0 - percentile / 100
    return sum(comb(runs, k) * over**k * (1 - over) ** (runs - k) for k in (0, 1))


@pytest.mark.parametrize(("percentile", "runs"), MIN_RUNS_FOR_PERCENTILE.items())
def test_a_percentile_needs_the_fewest_runs_that_support_it_at_confidence_099(
    percentile: int, runs: int
) -> None:
    """[P-7.2] With one run over, fewer would be chance: the binomial tail, computed afresh."""
    assert _chance_of_at_most_one_over(runs, percentile) <= 0.01
    assert _chance_of_at_most_one_over(runs - 1, percentile) > 0.01


def test_the_smallest_allowed_measurement_supports_a_median() -> None:
    """[P-7.2]"""
    MeasureSpec(min_runs=MIN_RUNS_FOR_PERCENTILE[50])
    with pytest.raises(ValidationError):
        MeasureSpec(min_runs=MIN_RUNS_FOR_PERCENTILE[50] - 1)


def test_the_default_measurement_supports_every_percentile() -> None:
    """[P-7.2]"""
    spec = MeasureSpec()
    assert spec.processes * spec.min_runs >= max(MIN_RUNS_FOR_PERCENTILE.values())


@pytest.mark.parametrize(
    "field",
    [
        {"processes": 0},
        {"processes": 51},
        {"min_steady_s": -1},
        {"min_steady_s": 601},
        {"warm_up_s": 121},
        {"max_process_s": 0},
        {"max_process_s": 3601},
        {"threads": 0},
        {"threads": 257},
    ],
    ids=str,
)
def test_a_device_cannot_be_asked_for_an_endless_measurement(field: dict[str, float]) -> None:
    """[P-7.3]"""
    with pytest.raises(ValidationError):
        MeasureSpec.model_validate(field)
