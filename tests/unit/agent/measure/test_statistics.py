"""From per-process results to one figure with an interval."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab_agent.measure.jobs import PercentileRow, TimedRuns
from trimtab_agent.measure.statistics import (
    judge_stability,
    median_bytes,
    median_ms,
    percentile_reading,
    ratio_reading,
)
from trimtab_protocol.measurement import MIN_RUNS_FOR_PERCENTILE, Stability, ThrottleEvent
from trimtab_protocol.reading import Reading

MS = 1_000_000.0


def a_row(value_ms: float, spread: float = 0.01) -> PercentileRow:
    """A percentile with replicates evenly around it."""
    offsets = [spread * (index - 49.5) / 49.5 for index in range(100)]
    return PercentileRow(
        value_ns=value_ms * MS, replicates_ns=tuple(value_ms * MS * (1 + row) for row in offsets)
    )


def a_result(
    p50_ms: float = 10.0, *, p90_ms: float | None = None, runs: int = 1000, **changes: Any
) -> TimedRuns:
    """A steady process: as much CPU time as wall time, both halves alike."""
    tail_ms = p50_ms * 1.05 if p90_ms is None else p90_ms
    facts: dict[str, Any] = {
        "runs": runs,
        "percentiles": {
            50: a_row(p50_ms),
            90: a_row(tail_ms),
            95: a_row(tail_ms * 1.01),
            99: a_row(tail_ms * 1.02),
        },
        "first_half_median_ns": p50_ms * MS,
        "second_half_median_ns": p50_ms * MS,
        "cpu_ns_per_run": p50_ms * MS,
        "wall_ns": int(p50_ms * MS * runs),
        "involuntary_switches": 0,
        "max_ns": int(p50_ms * MS * 2),
        "mad_ns": p50_ms * MS * 0.01,
        "outliers": 0,
    }
    return TimedRuns(**(facts | changes))


def width(reading: Reading) -> float:
    assert reading.interval is not None
    return reading.interval.high - reading.interval.low


@pytest.mark.parametrize("percentile", [50, 90, 95, 99])
def test_a_percentile_needs_enough_runs_in_every_process(percentile: int) -> None:
    """[P-7.2]"""
    needed = {50: 11, 90: 64, 95: 130, 99: 662}[percentile]
    assert MIN_RUNS_FOR_PERCENTILE[percentile] == needed
    many = a_result(runs=5000)
    assert percentile_reading([many, a_result(runs=needed)], percentile).value is not None
    reading = percentile_reading([many, a_result(runs=needed - 1)], percentile)
    assert reading.value is None
    assert (
        reading.absent == f"p{percentile} needs {needed} runs per process, there were {needed - 1}"
    )


def test_the_figure_is_the_median_over_processes_in_milliseconds() -> None:
    results = [a_result(value) for value in (10.0, 99.0, 11.0)]
    assert percentile_reading(results, 50).value == pytest.approx(11.0)


def test_the_interval_grows_with_the_spread_between_processes() -> None:
    close = percentile_reading([a_result(10 + 0.01 * n) for n in range(5)], 50)
    apart = percentile_reading([a_result(10 + 1.0 * n) for n in range(5)], 50)
    assert width(apart) > 5 * width(close)


def test_one_process_still_has_the_interval_of_its_own_runs() -> None:
    reading = percentile_reading([a_result(10.0)], 50)
    assert 0.1 < width(reading) <= 0.2


def test_the_same_results_give_the_same_interval_and_another_seed_another() -> None:
    results = [a_result(10 + 0.3 * n) for n in range(4)]
    assert percentile_reading(results, 90) == percentile_reading(results, 90)
    others = {width(percentile_reading(results, 90, seed)) for seed in range(4)}
    assert len(others) > 1


@settings(deadline=None, max_examples=30)
@given(values=st.lists(st.floats(0.01, 1000), min_size=1, max_size=6))
def test_the_interval_always_contains_the_value(values: list[float]) -> None:
    reading = percentile_reading([a_result(value) for value in values], 50)
    assert reading.interval is not None
    assert reading.interval.low <= reading.known() <= reading.interval.high


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_replicates_that_all_lie_beside_the_value_still_give_an_interval_around_it(
    factor: float,
) -> None:
    row = PercentileRow(value_ns=10 * MS, replicates_ns=(10 * MS * factor,) * 100)
    skewed = a_result(percentiles=dict.fromkeys((50, 90, 95, 99), row))
    for reading in (percentile_reading([skewed], 50), ratio_reading([skewed], [a_result()], 50)):
        assert reading.interval is not None
        assert reading.interval.low <= reading.known() <= reading.interval.high


def test_a_ratio_is_taken_within_pairs_so_that_a_slow_minute_hits_both() -> None:
    machine = [1.0, 3.0, 1.5, 2.0]  # how slow the machine was during each pair
    candidates = [a_result(8.0 * slow) for slow in machine]
    incumbents = [a_result(10.0 * slow) for slow in machine]
    reading = ratio_reading(candidates, incumbents, 50)
    assert reading.value == pytest.approx(0.8)
    assert width(reading) < 0.05


def test_pairs_that_disagree_widen_the_ratio() -> None:
    incumbents = [a_result(10.0)] * 4
    agree = ratio_reading([a_result(8.0)] * 4, incumbents, 50)
    disagree = ratio_reading([a_result(v) for v in (6.0, 8.0, 10.0, 12.0)], incumbents, 50)
    assert width(disagree) > width(agree) + 0.1
    assert disagree.interval is not None
    assert disagree.interval.low < disagree.known() < disagree.interval.high


def test_a_ratio_needs_enough_runs_on_both_sides() -> None:
    few, many = [a_result(runs=63)], [a_result()]
    assert ratio_reading(few, many, 90).absent == "p90 needs 64 runs per process, there were 63"
    assert ratio_reading(many, few, 90).value is None
    assert ratio_reading(few, many, 50).value is not None


def test_a_phase_is_the_median_over_processes() -> None:
    assert median_ms([1 * MS, 9 * MS, 2 * MS]).value == pytest.approx(2.0)


def test_a_size_that_one_process_could_not_read_is_absent() -> None:
    assert median_bytes([100, 300, 200], "why").value == 200
    assert median_bytes([100, None, 200], "why").absent == "why"


def test_a_steady_measurement_is_stable_without_reasons() -> None:
    assert judge_stability([a_result(), a_result(10.1)], 1) == (Stability.STABLE, ())
    assert judge_stability([a_result()], 1) == (Stability.STABLE, ())


UNSTABLE: list[tuple[str, list[TimedRuns], int, Stability, str]] = [
    (
        "the CPU was taken away",
        [a_result(involuntary_switches=1001)],
        4,
        Stability.CONTENDED,
        "taken away 100 times a second",
    ),
    (
        "waited for the CPU",
        [a_result(cpu_ns_per_run=8.9 * MS)],
        1,
        Stability.CONTENDED,
        "1.12 times the CPU time",
    ),
    (
        "slower in the second half",
        [a_result(second_half_median_ns=10.4 * MS)],
        1,
        Stability.DRIFTING,
        "+4.0%",
    ),
    (
        "faster in the second half",
        [a_result(second_half_median_ns=9.6 * MS)],
        1,
        Stability.DRIFTING,
        "-4.0%",
    ),
    (
        "processes differ",
        [a_result(9.0), a_result(10.0), a_result(11.0)],
        1,
        Stability.NOISY,
        "10.0% between processes",
    ),
    ("a long tail", [a_result(p90_ms=15.5)], 1, Stability.NOISY, "1.55 times p50"),
]


@pytest.mark.parametrize(
    ("results", "threads", "verdict", "says"),
    [row[1:] for row in UNSTABLE],
    ids=[row[0] for row in UNSTABLE],
)
def test_what_looks_unstable_is_named_and_said(
    results: list[TimedRuns], threads: int, verdict: Stability, says: str
) -> None:
    found, reasons = judge_stability(results, threads)
    assert found is verdict
    assert any(says in reason for reason in reasons)


STABLE = {
    "a few switches": a_result(involuntary_switches=999),
    "a little waiting": a_result(cpu_ns_per_run=9.2 * MS),
    "a little drift": a_result(second_half_median_ns=10.29 * MS),
    "a little tail": a_result(p90_ms=14.9),
    "no CPU clock": a_result(cpu_ns_per_run=0.0),
}


@pytest.mark.parametrize("name", STABLE)
def test_what_is_within_its_bound_is_stable(name: str) -> None:
    assert judge_stability([STABLE[name]], 1) == (Stability.STABLE, ())


def test_with_several_threads_wall_time_may_be_anything_against_cpu_time() -> None:
    assert judge_stability([a_result(cpu_ns_per_run=2.0 * MS)], 4)[0] is Stability.STABLE


def test_the_gravest_finding_names_the_verdict_and_all_are_said() -> None:
    result = a_result(
        involuntary_switches=5000, second_half_median_ns=12.0 * MS, p90_ms=20.0, cpu_ns_per_run=MS
    )
    verdict, reasons = judge_stability([result], 1)
    assert verdict is Stability.CONTENDED
    assert len(reasons) == 4


def test_throttling_that_voids_the_figures_is_the_verdict_and_other_throttling_is_not() -> None:
    event = ThrottleEvent(source="oc1_event_cnt", what="under-voltage", count=2, is_voiding=True)
    verdict, reasons = judge_stability([a_result()], 1, (event,))
    assert verdict is Stability.THROTTLED
    assert reasons == ("throttled: under-voltage (oc1_event_cnt)",)
    harmless = event.model_copy(update={"is_voiding": False})
    assert judge_stability([a_result()], 1, (harmless,)) == (Stability.STABLE, ())
