"""[P-8.1] [P-8.2] [P-8.3] [P-8.4] [P-8.5] How readings are held against limits."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from support.factories import a_budget
from support.strategies import budgets, readings
from trimtab_protocol.budget import Budget, Metric, Outcome, judge
from trimtab_protocol.reading import Reading, absent, known

some_readings = st.dictionaries(st.sampled_from(Metric), readings(), max_size=8)


def _bounds(reading: Reading) -> tuple[float, float]:
    """Everything the reading allows: its value and its interval."""
    ends = [reading.known()]
    ends += [reading.interval.low, reading.interval.high] if reading.interval else []
    return min(ends), max(ends)


@given(budget=budgets(), found=some_readings)
def test_a_budget_with_an_absent_metric_never_passes(
    budget: Budget, found: dict[Metric, Reading]
) -> None:
    """[P-8.2]"""
    verdict = judge(budget, found)
    if any(metric not in found or found[metric].value is None for metric in budget.limits):
        assert verdict.outcome is not Outcome.PASS


@given(budget=budgets(), found=some_readings)
def test_a_sure_violation_always_fails_and_nothing_else_does(
    budget: Budget, found: dict[Metric, Reading]
) -> None:
    """[P-8.3]"""
    sure = {
        metric
        for metric, limit in budget.limits.items()
        if metric in found and found[metric].value is not None and _bounds(found[metric])[0] > limit
    }
    verdict = judge(budget, found)
    assert (verdict.outcome is Outcome.FAIL) == bool(sure)
    assert {row.metric for row in verdict.violations} == sure


@given(budget=budgets(), found=some_readings)
def test_a_pass_means_that_everything_each_reading_allows_is_within_its_limit(
    budget: Budget, found: dict[Metric, Reading]
) -> None:
    """[P-8.4]"""
    kept = all(
        metric in found and found[metric].value is not None and _bounds(found[metric])[1] <= limit
        for metric, limit in budget.limits.items()
    )
    assert (judge(budget, found).outcome is Outcome.PASS) == kept


@given(budget=budgets(), found=some_readings)
@example(budget=a_budget(p50_ms=1e-300), found={Metric.P50_MS: known(1e300)})
def test_a_verdict_has_a_reason_and_its_violations_hold_the_numbers(
    budget: Budget, found: dict[Metric, Reading]
) -> None:
    """[P-8.5]"""
    verdict = judge(budget, found)
    assert verdict.reason
    for row in verdict.violations:
        assert row.limit == budget.limits[row.metric]
        assert row.found == found[row.metric].known()
        assert row.found > row.limit
        assert row.excess_ratio >= 0


@given(budget=budgets(), found=some_readings, metric=st.sampled_from(Metric))
def test_metrics_without_a_limit_decide_nothing(
    budget: Budget, found: dict[Metric, Reading], metric: Metric
) -> None:
    """[P-8.1]"""
    if metric not in budget.limits:
        assert judge(budget, {**found, metric: known(1e300)}) == judge(budget, found)


@given(found=some_readings)
def test_an_empty_budget_allows_everything(found: dict[Metric, Reading]) -> None:
    """[P-8.1]"""
    assert judge(Budget(), found).outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("reading", "outcome"),
    [
        (known(10.0), Outcome.PASS),  # a limit is kept by what reaches it
        (known(10.0001), Outcome.FAIL),
        (known(9.0, 8.0, 10.0), Outcome.PASS),
        (known(9.0, 8.0, 11.0), Outcome.INCONCLUSIVE),
        (known(10.5, 9.0, 12.0), Outcome.INCONCLUSIVE),
        (known(12.0, 10.0, 14.0), Outcome.INCONCLUSIVE),
        (known(12.0, 10.1, 14.0), Outcome.FAIL),
        (known(5.0, 11.0, 12.0), Outcome.INCONCLUSIVE),  # outside its own interval
        (known(100.0, 1.0, 2.0), Outcome.INCONCLUSIVE),
        (absent("no sensor"), Outcome.INCONCLUSIVE),
    ],
)
def test_a_reading_around_its_limit_is_judged_by_all_that_it_allows(
    reading: Reading, outcome: Outcome
) -> None:
    """[P-8.4]"""
    assert judge(a_budget(p90_ms=10.0), {Metric.P90_MS: reading}).outcome is outcome


def test_a_metric_that_nobody_measured_is_named_in_the_doubt() -> None:
    """[P-8.2]"""
    verdict = judge(a_budget(energy_mj=5.0, p90_ms=10.0), {Metric.P90_MS: known(9.0)})
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason == "energy_mj is absent: not measured"


def test_an_absent_metric_does_not_hide_a_broken_limit() -> None:
    """[P-8.3]"""
    found = {Metric.ENERGY_MJ: absent("no sensor"), Metric.P90_MS: known(11.0)}
    assert judge(a_budget(energy_mj=5.0, p90_ms=10.0), found).outcome is Outcome.FAIL


def test_a_fail_names_the_worst_of_all_its_violations() -> None:
    """[P-8.5]"""
    found = {Metric.P50_MS: known(6.0), Metric.P90_MS: known(30.0), Metric.P99_MS: known(31.0)}
    verdict = judge(a_budget(p50_ms=5.0, p90_ms=10.0, p99_ms=30.0), found)
    assert [row.excess_ratio for row in verdict.violations] == pytest.approx([0.2, 2.0, 1 / 30])
    assert verdict.reason == "p90_ms 30 is over its limit 10 by 200.0%"


def test_an_accuracy_drop_may_be_limited_to_nothing() -> None:
    """[P-8.1]"""
    budget = a_budget(accuracy_drop=0.0)
    assert judge(budget, {Metric.ACCURACY_DROP: known(-0.01)}).outcome is Outcome.PASS
    verdict = judge(budget, {Metric.ACCURACY_DROP: known(0.02)})
    assert verdict.outcome is Outcome.FAIL
    assert verdict.violations[0].excess_ratio == 0.02


@pytest.mark.parametrize("metric", [metric for metric in Metric if metric != "accuracy_drop"])
def test_a_limit_of_zero_that_can_never_be_kept_is_refused(metric: Metric) -> None:
    """[P-8.1]"""
    with pytest.raises(ValidationError, match="never be kept"):
        Budget(limits={metric: 0.0})


@pytest.mark.parametrize("limit", [-1.0, float("inf"), float("nan")])
def test_a_limit_is_a_finite_number_that_is_not_negative(limit: float) -> None:
    """[P-8.1]"""
    with pytest.raises(ValidationError):
        Budget(limits={Metric.ACCURACY_DROP: limit})
