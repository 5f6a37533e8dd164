"""Points of (time, energy so far), and windows cut out of them. Pure.

At the edges of a window a counter is interpolated in a straight line. Where points carry power,
it is the power that runs in a straight line, so a window's energy is the trapezoid rule's, clipped.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_agent.energy.base import Point, add_trapezoid_mj

GAP_INTERVALS = 3.0
"""A gap of more than this many sampling intervals counts as time without a sample."""


@dataclass(frozen=True)
class Coverage:
    """How much of a window samples stand for: its share, and the longest gap in seconds."""

    share: float
    max_gap_s: float


def energy_between_mj(points: Sequence[Point], start_s: float, end_s: float) -> float:
    """Energy from start to end.

    Raises:
        ValueError: The points do not reach around the window.
    """
    if not points or points[0].at_s > start_s or points[-1].at_s < end_s:
        span = f"{points[0].at_s:.2f} to {points[-1].at_s:.2f} s" if points else "none"
        raise ValueError(f"samples ({span}) do not cover {start_s:.2f} to {end_s:.2f} s")
    return _energy_at_mj(points, end_s) - _energy_at_mj(points, start_s)


def coverage_of(
    points: Sequence[Point], start_s: float, end_s: float, interval_s: float
) -> Coverage:
    """Share of a window that is not in a gap of more than three intervals."""
    inside = [point.at_s for point in points if start_s < point.at_s < end_s]
    before = max((point.at_s for point in points if point.at_s <= start_s), default=start_s)
    after = min((point.at_s for point in points if point.at_s >= end_s), default=end_s)
    times = [before, *inside, after]
    missed_s = 0.0
    for left, right in itertools.pairwise(times):
        if right - left > GAP_INTERVALS * interval_s:
            missed_s += min(right, end_s) - max(left, start_s)
    longest_s = max(right - left for left, right in itertools.pairwise(times))
    return Coverage(1.0 - missed_s / (end_s - start_s), longest_s)


def _energy_at_mj(points: Sequence[Point], at_s: float) -> float:
    times = [point.at_s for point in points]
    right = bisect_left(times, at_s)
    if times[right] == at_s:
        return points[bisect_right(times, at_s) - 1].energy_mj
    before, after = points[right - 1], points[right]
    share = (at_s - before.at_s) / (after.at_s - before.at_s)
    if before.power_mw is not None and after.power_mw is not None:
        edge_mw = before.power_mw + share * (after.power_mw - before.power_mw)
        return add_trapezoid_mj(before, at_s, edge_mw)
    return before.energy_mj + share * (after.energy_mj - before.energy_mj)
