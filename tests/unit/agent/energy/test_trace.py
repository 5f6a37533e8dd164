"""Windows cut out of points, against values computed by hand."""

from __future__ import annotations

import pytest

from trimtab_agent.energy.base import Point
from trimtab_agent.energy.trace import coverage_of, energy_between_mj

# Power 0, 2, 2, 0 W at 0, 1, 2, 3 s.
POWER = [Point(0, 0, 0), Point(1, 1000, 2000), Point(2, 3000, 2000), Point(3, 4000, 0)]
COUNTER = [Point(0, 0), Point(1, 1000), Point(2, 3000)]


@pytest.mark.parametrize(
    ("start_s", "end_s", "energy_mj"),
    [
        (0, 3, 4000),
        (1, 2, 2000),
        (0.5, 1, 750),  # power runs from 1 to 2 W
        (0.5, 2.5, 750 + 2000 + 750),
        (0.25, 0.75, 500),  # both edges within one gap: 0.5 to 1.5 W
    ],
)
def test_the_trapezoid_is_clipped_at_the_edges(
    start_s: float, end_s: float, energy_mj: float
) -> None:
    assert energy_between_mj(POWER, start_s, end_s) == pytest.approx(energy_mj)


def test_a_counter_is_interpolated_in_a_straight_line() -> None:
    assert energy_between_mj(COUNTER, 0.5, 1.25) == pytest.approx(1500 - 500)


@pytest.mark.parametrize(("start_s", "end_s"), [(-0.1, 1), (1, 3.1)])
def test_a_window_that_points_do_not_reach_around_is_refused(start_s: float, end_s: float) -> None:
    with pytest.raises(ValueError, match="do not cover"):
        energy_between_mj(POWER, start_s, end_s)
    with pytest.raises(ValueError, match="none"):
        energy_between_mj([], start_s, end_s)


def test_a_long_gap_counts_as_not_covered_and_a_short_one_does_not() -> None:
    points = [Point(t, 0) for t in (0, 1, 2, 3, 7, 8, 9, 10)]
    found = coverage_of(points, 0, 10, interval_s=1)
    assert found.share == pytest.approx(0.6)
    assert found.max_gap_s == 4
    assert coverage_of(points, 0, 10, interval_s=1.5).share == 1
    assert coverage_of(points, 5, 10, interval_s=1).share == pytest.approx(0.6)
