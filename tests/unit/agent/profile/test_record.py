"""The record of a profile, and its size on the wire."""

from __future__ import annotations

import pytest

from trimtab_agent.profile.pacing import MAX_EVENTS, MAX_RUNS, choose_runs
from trimtab_agent.profile.record import (
    MAX_NAME_CHARACTERS,
    MAX_OPERATORS,
    MAX_PROFILE_BYTES,
    REST_OP,
    OperatorSamples,
    ProfiledRuns,
    normalise,
)


def runs_of(*operators: OperatorSamples, run_us: tuple[float, ...] = (100.0,)) -> ProfiledRuns:
    return ProfiledRuns("a profiler", "onnxruntime", "cpu", run_us, operators, 0.2)


def test_shares_are_of_all_operators_and_the_most_expensive_comes_first() -> None:
    found = runs_of(
        OperatorSamples("small", "Relu", (5.0, 15.0)),
        OperatorSamples("large", "Conv", (60.0, 40.0)),
        run_us=(80.0, 70.0),
    )
    profile = normalise(found, 0.1)
    assert [(row.name, row.calls, row.total_us) for row in profile.operators] == [
        ("large", 2, 100.0),
        ("small", 2, 20.0),
    ]
    assert profile.operators[0].share == pytest.approx(100 / 120, abs=1e-5)
    assert profile.unattributed_us == 15.0
    assert profile.slowdown == 2.0
    assert profile.runs == 2


def test_without_timed_runs_no_slowdown_is_claimed() -> None:
    assert normalise(runs_of(OperatorSamples("a", "Relu", (1.0,))), None).slowdown is None


def test_operators_faster_than_the_clock_have_a_share_of_zero() -> None:
    profile = normalise(runs_of(OperatorSamples("a", "Relu", (0.0,))), None)
    assert profile.absent is None
    assert profile.operators[0].share == 0.0


def test_what_no_row_is_left_for_is_summed_in_one_that_says_so() -> None:
    operators = [OperatorSamples(f"n{i}", "Add", (float(i),)) for i in range(1, 201)]
    profile = normalise(runs_of(*operators, run_us=(30_000.0,)), None)
    last = profile.operators[-1]
    assert len(profile.operators) == MAX_OPERATORS
    assert (last.name, last.op) == ("the 51 other operators", REST_OP)
    assert last.total_us == sum(range(1, 52))
    assert sum(row.share for row in profile.operators) == pytest.approx(1.0, abs=1e-3)


def test_a_profile_with_the_longest_names_fits_into_its_part_of_a_message() -> None:
    operators = [
        OperatorSamples(f"{'é' * 900}{i}", "ü" * 900, (1.0,), i, "CPUExecutionProvider", 1, 1, 1)
        for i in range(500)
    ]
    profile = normalise(runs_of(*operators, run_us=(500.0,)), None)
    assert len(profile.model_dump_json().encode()) <= MAX_PROFILE_BYTES
    assert profile.operators[-1].op == REST_OP
    assert all(len(row.name) <= MAX_NAME_CHARACTERS for row in profile.operators)
    assert sum(row.calls for row in profile.operators) == 500


def test_a_profiler_that_saw_nothing_gives_no_profile() -> None:
    assert normalise(runs_of(), 0.1).absent == "a profiler recorded no operator"


@pytest.mark.parametrize(
    ("events_per_run", "run_s", "expected"),
    [
        (10, 0.001, MAX_RUNS),
        (1000, 0.001, MAX_EVENTS // 1000),
        (10, 1.0, 10),
        (10, 60.0, 1),
        (10**6, 0.001, 1),
        (0, 0.0, MAX_RUNS),
    ],
)
def test_runs_are_bounded_by_events_and_by_time(
    events_per_run: int, run_s: float, expected: int
) -> None:
    assert choose_runs(events_per_run, run_s, 10.0) == expected
