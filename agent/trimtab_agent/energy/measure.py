"""Energy per inference of a load: idle windows before and after each window of load.

A window is at least 20 time constants (or update intervals) of the sensor. The beginning of a run,
in which an averaging sensor still shows what was before, is thrown away, and so is the last
interval of whatever gives power. What fails, the sensor or the load, ends in an absent reading with
the reason, never in an exception.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from trimtab_agent.energy.base import EnergySensor, Point, SensorFacts
from trimtab_agent.energy.recording import Recording
from trimtab_agent.energy.trace import Coverage, coverage_of, energy_between_mj
from trimtab_agent.energy.windows import Judged, Window, judge_windows
from trimtab_protocol.errors import TrimtabError
from trimtab_protocol.measurement import Energy
from trimtab_protocol.reading import absent, known

WINDOW_TIME_CONSTANTS = 20.0
LEAST_COVERAGE = 0.9


@dataclass(frozen=True)
class LoadRun:
    """What a load did: times of CLOCK_MONOTONIC, and inferences completed between them."""

    started_s: float
    ended_s: float
    inferences: int


class Load(Protocol):
    """A loaded model that idles until it is told to run."""

    def run_for(self, seconds: float) -> LoadRun:
        """Infer back to back for about so long.

        Raises:
            TrimtabError: The model or its process failed.
        """


def plan_window_s(sensor: SensorFacts, window_s: float) -> float:
    """Seconds of one window without its settling time, for this sensor."""
    return max(window_s, WINDOW_TIME_CONSTANTS * sensor.filter_s, sensor.update_interval_s * 20)


def measure_energy(sensor: EnergySensor, load: Load, windows: int, window_s: float) -> Energy:
    """Measure, or say why not.

    Args:
        sensor: An opened sensor.
        load: The model.
        windows: Windows of load, at least 1.
        window_s: Seconds per window, at least; a slow sensor lengthens it.
    """
    facts = sensor.facts()
    planned_s = plan_window_s(facts, window_s)
    try:
        idle, busy, seen = _take_windows(sensor, load, windows, planned_s)
        _refuse_gaps(seen)
        judged = judge_windows(idle, busy, facts)
    except (TrimtabError, ValueError) as error:
        return Energy(
            per_inference_mj=absent(f"energy was not measured: {error}"),
            source=facts.source,
            scope=facts.scope,
            kind=facts.kind,
        )
    return _to_record(facts, judged, seen, windows, planned_s)


def _take_windows(
    sensor: EnergySensor, load: Load, windows: int, window_s: float
) -> tuple[list[Window], list[Window], list[Coverage]]:
    if windows < 1:
        raise ValueError(f"{windows} windows of load were asked for; at least 1 is needed")
    facts = sensor.facts()
    run_s = facts.settle_s + window_s + facts.tail_s
    idle_runs, load_runs = [], []
    with Recording(sensor) as recording:
        recording.wait_for_first()
        idle_runs.append(_idle(run_s))
        for _ in range(windows):
            recording.mark()
            load_runs.append(load.run_for(run_s))
            recording.mark()
            idle_runs.append(_idle(run_s))
        points = recording.points_until(idle_runs[-1].ended_s)
    idle = [cut_window(points, run, facts) for run in idle_runs]
    busy = [cut_window(points, run, facts) for run in load_runs]
    seen = [coverage for _, coverage in (*idle, *busy)]
    return [window for window, _ in idle], [window for window, _ in busy], seen


def cut_window(
    points: Sequence[Point], run: LoadRun, facts: SensorFacts
) -> tuple[Window, Coverage]:
    """The middle of a run; a steady load is taken to infer evenly over all of it.

    Raises:
        ValueError: The run is too short for this sensor, or the points do not reach around it.
    """
    start_s, end_s = run.started_s + facts.settle_s, run.ended_s - facts.tail_s
    if end_s <= start_s:
        raise ValueError(
            f"a run of {run.ended_s - run.started_s:.1f} s ended before the sensor had settled, "
            f"which takes {facts.settle_s + facts.tail_s:.1f} s"
        )
    count = run.inferences * (end_s - start_s) / (run.ended_s - run.started_s)
    energy_mj = energy_between_mj(points, start_s, end_s)
    window = Window(end_s - start_s, energy_mj, count, (start_s + end_s) / 2)
    seen = _changes(points) if facts.is_slow else points
    return window, coverage_of(seen, start_s, end_s, facts.interval_s)


def _changes(points: Sequence[Point]) -> Sequence[Point]:
    """Points at which the power is another one: a gauge that repeats itself has not measured."""
    return [
        point for before, point in itertools.pairwise(points) if point.power_mw != before.power_mw
    ]


def _refuse_gaps(seen: list[Coverage]) -> None:
    share = min(coverage.share for coverage in seen)
    if share < LEAST_COVERAGE:
        longest_s = max(coverage.max_gap_s for coverage in seen)
        raise ValueError(
            f"samples cover only {share:.0%} of a window, the longest gap is {longest_s:.1f} s"
        )


def _idle(seconds: float) -> LoadRun:
    started_s = time.monotonic()
    time.sleep(seconds)
    return LoadRun(started_s, time.monotonic(), 0)


def _to_record(
    facts: SensorFacts, judged: Judged, seen: list[Coverage], windows: int, window_s: float
) -> Energy:
    return Energy(
        per_inference_mj=judged.per_inference_mj,
        source=facts.source,
        scope=facts.scope,
        uncertainty_mj=judged.uncertainty_mj,
        gross_mj=judged.gross_mj,
        gross_uncertainty_mj=judged.gross_uncertainty_mj,
        idle_power_mw=judged.idle_power_mw,
        load_power_mw=judged.load_power_mw,
        kind=facts.kind,
        windows=windows,
        window_s=window_s,
        coverage=known(min(coverage.share for coverage in seen)),
        max_gap_s=max(coverage.max_gap_s for coverage in seen),
    )
