"""From the times of single operator runs to the record that goes on the wire.

Profiling slows a model down, so what carries over to the timed runs are the shares, not the
microseconds. A message has room for MAX_OPERATORS rows; the small rest is summed in one row.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_protocol.measurement import Operator, OperatorProfile

MAX_OPERATORS = 150
MAX_PROFILE_BYTES = 48 * 1024  # of the 128 KiB that a message may have
MAX_NAME_CHARACTERS = 120
REST_OP = "(rest)"


@dataclass(frozen=True)
class OperatorSamples:
    """One operator in all profiled runs.

    Args:
        durations_us: One value per call, in microseconds.
        input_bytes: Activations that it read; None where the runtime does not say.
        output_bytes: Activations that it wrote.
        parameter_bytes: Weights that it read.
    """

    name: str
    op: str
    durations_us: tuple[float, ...]
    node_index: int | None = None
    provider: str = ""
    input_bytes: int | None = None
    output_bytes: int | None = None
    parameter_bytes: int | None = None


@dataclass(frozen=True)
class ProfiledRuns:
    """What a profiler saw.

    Args:
        source: Who saw it, with its version.
        mode: The kernels that ran.
        run_us: Whole inferences by the profiler's clock, in microseconds, one per run.
        operators: In the order of execution.
        wall_p50_ms: Median of the profiled runs by our clock, the one that timed runs use.
    """

    source: str
    runtime: str
    mode: str
    run_us: tuple[float, ...]
    operators: tuple[OperatorSamples, ...]
    wall_p50_ms: float


def absent_profile(reason: str) -> OperatorProfile:
    """No profile, and why."""
    return OperatorProfile(absent=reason)


def normalise(found: ProfiledRuns, timed_p50_ms: float | None) -> OperatorProfile:
    """The record: the most expensive operators first, and one row for the rest.

    Args:
        found: What the profiler saw.
        timed_p50_ms: Median of the runs without a profiler; None if there were none.
    """
    total_us = sum(sum(row.durations_us) for row in found.operators)
    if not found.run_us or not found.operators:
        return absent_profile(f"{found.source} recorded no operator")
    rows = sorted((_operator(row, total_us) for row in found.operators), key=_by_cost)
    per_run_us = total_us / len(found.run_us)
    profile = OperatorProfile(
        source=found.source,
        runtime=found.runtime,
        mode=found.mode,
        runs=len(found.run_us),
        unattributed_us=round(statistics.fmean(found.run_us) - per_run_us, 3),
        slowdown=round(found.wall_p50_ms / timed_p50_ms, 4) if timed_p50_ms else None,
    )
    limit = MAX_OPERATORS
    while True:
        shortened = profile.model_copy(update={"operators": shorten(rows, limit)})
        if limit == 1 or len(shortened.model_dump_json().encode()) <= MAX_PROFILE_BYTES:
            return shortened
        limit = max(1, limit * 3 // 4)


def shorten(rows: Sequence[Operator], limit: int) -> tuple[Operator, ...]:
    """At most `limit` rows; the cheapest are summed in the last one, which says how many."""
    if len(rows) <= limit:
        return tuple(rows)
    kept, rest = rows[: limit - 1], rows[limit - 1 :]
    summed = Operator(
        name=f"the {len(rest)} other operators",
        op=REST_OP,
        calls=sum(row.calls for row in rest),
        total_us=round(sum(row.total_us for row in rest), 3),
        p50_us=round(sum(row.p50_us for row in rest), 3),
        share=min(1.0, round(sum(row.share for row in rest), 6)),
    )
    return (*kept, summed)


def _operator(row: OperatorSamples, total_us: float) -> Operator:
    own_us = sum(row.durations_us)
    return Operator(
        node_index=row.node_index,
        name=_clip(row.name),
        op=_clip(row.op),
        provider=row.provider,
        calls=len(row.durations_us),
        total_us=round(own_us, 3),
        p50_us=round(statistics.median(row.durations_us), 3),
        share=round(own_us / total_us, 6) if total_us > 0 else 0.0,
        input_bytes=row.input_bytes,
        output_bytes=row.output_bytes,
        parameter_bytes=row.parameter_bytes,
    )


def _by_cost(row: Operator) -> float:
    return -row.total_us


def _clip(name: str) -> str:
    """The end of a long name tells more than its beginning."""
    return name if len(name) <= MAX_NAME_CHARACTERS else "…" + name[1 - MAX_NAME_CHARACTERS :]
