"""Running a model and taking the time, inside the worker: warm-up, bursts, paced runs, plain load.

Only the inference is inside a timer. Garbage collection is off while runs are timed. What is kept
are raw nanoseconds; figures are made of them afterwards, in `summary`.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from trimtab_agent.measure.process_memory import read_involuntary_switches

MAX_RUNS = 20_000
TIMED_CHUNK = 50

MIN_WARM_UP_RUNS = 10
MAX_WARM_UP_RUNS = 500
MAX_WARM_UP_S = 30.0
CONVERGED_RATIO = 0.02
CONVERGENCE_BLOCK = 10
CONVERGENCE_BLOCK_NS = 20_000_000  # a block of a fast model lasts at least this long
MAX_CONVERGENCE_BLOCK = 400

REWARM_NS = 20_000_000
"""Untimed runs before each burst: while the other model had the CPU, caches and clocks were its own."""

PACED_LEAD_RUNS = 3
"""Untimed runs at the pace: the first ones still have the caches and clocks of what ran before."""

Infer = Callable[[], object]


@dataclass(frozen=True)
class WarmedUp:
    """What the warm-up took."""

    runs: int
    duration_ns: int
    is_converged: bool


@dataclass
class Samples:
    """Raw times of timed runs of one kind; it grows with each burst.

    In an array: a list takes 3 MB for the runs of a fast model, which would look like the model's.

    Args:
        proc_root: Where involuntary context switches are read.
    """

    proc_root: Path
    durations_ns: array[int] = field(default_factory=lambda: array("q"))
    wall_ns: int = 0
    cpu_ns: int = 0
    involuntary_switches: int = 0
    late: int = 0

    @contextmanager
    def accounted(self) -> Iterator[None]:
        """Add what passes within: wall time, CPU time of all threads, context switches."""
        switches = read_involuntary_switches(self.proc_root)
        started_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
        try:
            yield
        finally:
            self.cpu_ns += time.process_time_ns() - cpu_ns
            self.wall_ns += time.perf_counter_ns() - started_ns
            self.involuntary_switches += read_involuntary_switches(self.proc_root) - switches


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect garbage now, and none within: before the untimed runs, so that they warm up after it."""
    is_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if is_enabled:
            gc.enable()


def warm_up(infer: Infer, warm_up_s: float) -> WarmedUp:
    """Run until the median of the newest block is within 2 % of the one before.

    Args:
        infer: One inference.
        warm_up_s: At least so long, and at least 10 runs; at most 30 s, or 500 runs if those take
            longer than `warm_up_s`.
    """
    clock = time.perf_counter_ns
    started_ns, runs, is_converged = clock(), 0, False
    blocks: list[int] = []
    length = CONVERGENCE_BLOCK
    while True:
        block = sorted(time_runs(infer, length))
        blocks.append(block[length // 2])
        runs += length
        length = min(
            max(CONVERGENCE_BLOCK, CONVERGENCE_BLOCK_NS // max(blocks[-1], 1)),
            MAX_CONVERGENCE_BLOCK,
        )
        elapsed_s = (clock() - started_ns) / 1e9
        if len(blocks) > 1:
            is_converged = abs(blocks[-1] / blocks[-2] - 1.0) <= CONVERGED_RATIO
        is_long_enough = elapsed_s >= warm_up_s and runs >= MIN_WARM_UP_RUNS
        # A fast model does more than MAX_WARM_UP_RUNS within warm_up_s; that alone is no reason to stop.
        is_capped = elapsed_s >= MAX_WARM_UP_S or (runs >= MAX_WARM_UP_RUNS and is_long_enough)
        if is_capped or (is_long_enough and is_converged):
            return WarmedUp(runs, clock() - started_ns, is_converged)


def time_runs(infer: Infer, count: int) -> list[int]:
    """Nanoseconds of each of `count` runs, back to back."""
    clock = time.perf_counter_ns
    samples = [0] * count
    for index in range(count):
        started_ns = clock()
        infer()
        samples[index] = clock() - started_ns
    return samples


def run_burst(infer: Infer, samples: Samples, min_runs: int, min_s: float) -> int:
    """Back-to-back runs, after a few untimed ones.

    Args:
        infer: One inference.
        samples: They are added here.
        min_runs: At least so many.
        min_s: At least so many seconds, unless MAX_RUNS are reached before.

    Returns:
        How many were timed.
    """
    clock = time.perf_counter_ns
    taken = array("q")
    chunk = min(TIMED_CHUNK, max(1, min_runs))  # a slow model runs no more often than it has to
    with uncollected():
        started_ns = clock()
        while True:
            infer()
            if clock() - started_ns >= REWARM_NS:
                break
        with samples.accounted():
            started_ns = clock()
            while len(taken) < min_runs or (
                clock() - started_ns < min_s * 1e9 and len(taken) < MAX_RUNS
            ):
                until = min_runs if len(taken) < min_runs else MAX_RUNS
                taken.extend(time_runs(infer, min(chunk, until - len(taken))))
    samples.durations_ns += taken
    return len(taken)


def run_paced(infer: Infer, samples: Samples, period_ns: int, runs: int) -> int:
    """One run per period, asleep in between, as an application with a frame rate does.

    A run that takes longer than the period makes the next ones begin late: they are counted, and
    the pace goes on from the next whole period.

    Returns:
        How many were timed.
    """
    clock = time.perf_counter_ns
    taken = array("q")
    with ExitStack() as stack:
        stack.enter_context(uncollected())
        due_ns = clock() + period_ns
        for number in range(PACED_LEAD_RUNS + runs):
            if number == PACED_LEAD_RUNS:
                stack.enter_context(samples.accounted())
            now_ns = clock()
            if now_ns > due_ns:
                samples.late += number >= PACED_LEAD_RUNS
                due_ns += -(-(now_ns - due_ns) // period_ns) * period_ns
            time.sleep(max(0, due_ns - clock()) / 1e9)
            started_ns = clock()
            infer()
            if number >= PACED_LEAD_RUNS:
                taken.append(clock() - started_ns)
            due_ns += period_ns
    samples.durations_ns += taken
    return len(taken)


def run_for(infer: Infer, seconds: float) -> int:
    """Back-to-back runs for about so many seconds, at least one; only counted."""
    clock = time.monotonic
    until_s, runs = clock() + seconds, 0
    while runs == 0 or clock() < until_s:
        infer()
        runs += 1
    return runs
