"""How many runs to profile: every operator of every run is an event that must be kept."""

from __future__ import annotations

MAX_RUNS = 50
MAX_EVENTS = 20_000


def choose_runs(events_per_run: int, run_s: float, budget_s: float) -> int:
    """As many as the events and the time allow, at least one.

    Args:
        events_per_run: Events that one inference leaves behind.
        run_s: Seconds per inference, about.
        budget_s: Seconds that all of them may take.
    """
    by_events = MAX_EVENTS // max(events_per_run, 1)
    by_time = int(budget_s / max(run_s, 1e-6))
    return max(1, min(MAX_RUNS, by_events, by_time))
