"""What LiteRT's profiler recorded, put in order and checked before anybody believes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_agent.profile.record import OperatorSamples
from trimtab_protocol.errors import ModelError

DEFAULT_EVENT = 1
OPERATOR_EVENT = 2
DELEGATE_OPERATOR_EVENT = 4
DELEGATE_PROFILED_EVENT = 8
"""Event types; all others (16: the runtime's own, 32: telemetry) hold no operator's time."""

OPERATOR_EVENTS = frozenset({OPERATOR_EVENT, DELEGATE_OPERATOR_EVENT, DELEGATE_PROFILED_EVENT})
WHOLE_RUN_TAG = "Invoke"
MAX_SUM_RATIO = 1.05


@dataclass(frozen=True)
class ProfilerEvent:
    """One event: `index` is the node's in the file, or the operator's within its delegate."""

    tag: str
    event_type: int
    elapsed_us: int
    index: int


def order_events(
    events: Sequence[ProfilerEvent], runs: int
) -> tuple[tuple[float, ...], tuple[OperatorSamples, ...]]:
    """Whole runs in microseconds, and the operators.

    Raises:
        ModelError: The events contradict each other, so the library is not the one we know.
    """
    run_us: list[float] = []
    groups: dict[tuple[int, int, str, int], list[float]] = {}
    seen: Counter[tuple[int, int, str]] = Counter()
    for event in events:
        if event.event_type == DEFAULT_EVENT and event.tag == WHOLE_RUN_TAG:
            run_us.append(float(event.elapsed_us))
            seen.clear()
        elif event.event_type in OPERATOR_EVENTS and run_us:
            key = (event.event_type, event.index, event.tag)
            groups.setdefault((*key, seen[key]), []).append(float(event.elapsed_us))
            seen[key] += 1
    _check(run_us, groups, runs)
    operators = tuple(
        OperatorSamples(
            name=f"{tag} #{index}",
            op=tag,
            durations_us=tuple(durations),
            node_index=index if event_type == OPERATOR_EVENT else None,
            provider="builtin" if event_type == OPERATOR_EVENT else "delegate",
        )
        for (event_type, index, tag, _), durations in groups.items()
    )
    return tuple(run_us), operators


def _check(
    run_us: Sequence[float], groups: dict[tuple[int, int, str, int], list[float]], runs: int
) -> None:
    if len(run_us) != runs:
        raise ModelError(
            f"LiteRT's profiler saw {len(run_us)} runs where there were {runs}; models with inner"
            " subgraphs (WHILE, IF) are not profiled"
        )
    if any(len(durations) != runs for durations in groups.values()):
        raise ModelError("LiteRT's profiler missed operators in some of the runs")
    total_us = sum(sum(durations) for durations in groups.values())
    if total_us > MAX_SUM_RATIO * sum(run_us):
        raise ModelError(
            f"LiteRT's profiler gives the operators {total_us:.0f} us and the whole runs only"
            f" {sum(run_us):.0f} us"
        )
