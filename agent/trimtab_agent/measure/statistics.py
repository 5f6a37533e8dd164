"""From per-process results to one figure with an interval: pure.

Rules:
    1. The headline is the median over processes of each process's percentile. The spread between
       processes is what the interval must contain.
    2. The interval is a hierarchical bootstrap: draw processes with replacement, for each take one
       of its block-bootstrap replicates, take the median. 2,000 draws, percentile interval, fixed
       seed. (Davison and Hinkley, Bootstrap Methods and their Application, 3.8.)
    3. A percentile is absent when a process had too few runs for it (MIN_RUNS_FOR_PERCENTILE).
    4. Nothing is deleted as an outlier; what looks unstable is said.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence

from trimtab_agent.measure.jobs import TimedRuns
from trimtab_protocol.measurement import MIN_RUNS_FOR_PERCENTILE, Stability, ThrottleEvent
from trimtab_protocol.reading import Reading, absent, known

DRAWS = 2000
CONFIDENCE = 0.95
NS_PER_MS = 1e6

NOISY_BETWEEN_RATIO = 0.05
NOISY_TAIL_RATIO = 1.5
DRIFT_RATIO = 0.03
CONTENDED_SWITCHES_PER_S = 100.0
CONTENDED_WALL_RATIO = 1.1


def percentile_reading(results: Sequence[TimedRuns], percentile: int, seed: int = 0) -> Reading:
    """A latency percentile in milliseconds over several processes, one row of each."""
    needed = MIN_RUNS_FOR_PERCENTILE[percentile]
    fewest = min(row.runs for row in results)
    if fewest < needed:
        return absent(f"p{percentile} needs {needed} runs per process, there were {fewest}")
    rows = [row.percentiles[percentile] for row in results]
    value = statistics.median(row.value_ns for row in rows)
    low, high = _bootstrap([row.replicates_ns for row in rows], seed)
    return known(value / NS_PER_MS, min(low, value) / NS_PER_MS, max(high, value) / NS_PER_MS)


def ratio_reading(
    candidates: Sequence[TimedRuns],
    incumbents: Sequence[TimedRuns],
    percentile: int,
    seed: int = 0,
) -> Reading:
    """Candidate / incumbent from pairs of processes that ran next to each other.

    Each pair gives a ratio per replicate; the value is the median over pairs, the interval draws
    pairs with replacement and one replicate of each.
    """
    needed = MIN_RUNS_FOR_PERCENTILE[percentile]
    fewest = min(row.runs for row in (*candidates, *incumbents))
    if fewest < needed:
        return absent(f"p{percentile} needs {needed} runs per process, there were {fewest}")
    pairs = [
        (one.percentiles[percentile], other.percentiles[percentile])
        for one, other in zip(candidates, incumbents, strict=True)
    ]
    value = statistics.median(one.value_ns / other.value_ns for one, other in pairs)
    replicates = [
        [a / b for a, b in zip(one.replicates_ns, other.replicates_ns, strict=True)]
        for one, other in pairs
    ]
    low, high = _bootstrap(replicates, seed)
    return known(value, min(low, value), max(high, value))


def known_ms(value_ns: float) -> Reading:
    """Nanoseconds as a reading in milliseconds."""
    return known(value_ns / NS_PER_MS)


def median_ms(values_ns: Sequence[float]) -> Reading:
    """Median of a phase over processes, in milliseconds."""
    return known(statistics.median(values_ns) / NS_PER_MS)


def median_bytes(values: Sequence[int | None], reason: str) -> Reading:
    """Median of a size over processes; absent if any process could not read it."""
    sizes = [value for value in values if value is not None]
    return known(statistics.median(sizes)) if len(sizes) == len(values) else absent(reason)


def judge_stability(
    results: Sequence[TimedRuns], threads: int, throttling: Sequence[ThrottleEvent] = ()
) -> tuple[Stability, tuple[str, ...]]:
    """How far the figures may be trusted; the gravest finding names the verdict."""
    throttled = [
        (Stability.THROTTLED, f"throttled: {event.what} ({event.source})")
        for event in throttling
        if event.is_voiding
    ]
    findings = [*throttled, *_contention(results, threads), *_drift(results), *_noise(results)]
    if not findings:
        return Stability.STABLE, ()
    return findings[0][0], tuple(text for _, text in findings)


def _contention(results: Sequence[TimedRuns], threads: int) -> list[tuple[Stability, str]]:
    found = []
    seconds = sum(row.wall_ns for row in results) / 1e9
    switches_per_s = sum(row.involuntary_switches for row in results) / max(seconds, 1e-9)
    if switches_per_s > CONTENDED_SWITCHES_PER_S:
        found.append(
            (Stability.CONTENDED, f"the CPU was taken away {switches_per_s:.0f} times a second")
        )
    cpu_ns = sum(row.cpu_ns_per_run * row.runs for row in results)
    wall_ns = sum(row.wall_ns for row in results)
    if threads == 1 and cpu_ns > 0 and wall_ns / cpu_ns > CONTENDED_WALL_RATIO:
        found.append(
            (Stability.CONTENDED, f"wall time is {wall_ns / cpu_ns:.2f} times the CPU time")
        )
    return found


def _drift(results: Sequence[TimedRuns]) -> list[tuple[Stability, str]]:
    ratios = [row.second_half_median_ns / row.first_half_median_ns for row in results]
    drift = statistics.median(ratios) - 1.0
    if abs(drift) <= DRIFT_RATIO:
        return []
    return [(Stability.DRIFTING, f"the second half of the runs differs by {drift:+.1%}")]


def _noise(results: Sequence[TimedRuns]) -> list[tuple[Stability, str]]:
    found = []
    medians = [row.percentiles[50].value_ns for row in results]
    if len(medians) > 1:
        spread = statistics.stdev(medians) / statistics.mean(medians)
        if spread > NOISY_BETWEEN_RATIO:
            found.append((Stability.NOISY, f"p50 varies by {spread:.1%} between processes"))
    tail = statistics.median(
        row.percentiles[90].value_ns / row.percentiles[50].value_ns for row in results
    )
    if tail > NOISY_TAIL_RATIO:
        found.append((Stability.NOISY, f"p90 is {tail:.2f} times p50"))
    return found


def _bootstrap(replicates: Sequence[Sequence[float]], seed: int) -> tuple[float, float]:
    generator = random.Random(seed)  # noqa: S311 - a bootstrap must be repeatable
    count = len(replicates)
    draws = sorted(
        statistics.median(
            generator.choice(replicates[generator.randrange(count)]) for _ in range(count)
        )
        for _ in range(DRAWS)
    )
    tail = (1.0 - CONFIDENCE) / 2.0
    return draws[int(tail * DRAWS)], draws[min(DRAWS - 1, int((1.0 - tail) * DRAWS))]
