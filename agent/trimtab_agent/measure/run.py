"""One measurement while it goes on: the jobs of its processes, their results, and what time it takes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from trimtab_agent.energy.base import EnergySensor, NoSensor
from trimtab_agent.energy.measure import plan_window_s
from trimtab_agent.measure.jobs import Settings, Subject, WorkerJob, WorkerResult
from trimtab_protocol.measurement import MeasureSpec

START_S = 1.0
"""A guess at the start of a process, for the progress alone."""

PROFILE_S = 10.0
"""A guess at an operator profile."""

ENERGY_MARGIN = 1.1
"""So many times their planned length is kept free for windows of energy, or they are left out."""

Progress = Callable[[float, str], None]


def _ignore_progress(_share: float, _what: str) -> None:
    return


@dataclass(frozen=True)
class Bench:
    """Where and how measurements run.

    Args:
        settings: The device's.
        on_progress: Called with the share that is done, 0 to 1 by planned time, and with what was
            done last, or is waited for.
        until_s: CLOCK_MONOTONIC at which the job is killed: energy that does not fit is left out.
    """

    settings: Settings
    on_progress: Progress = _ignore_progress
    until_s: float = inf


@dataclass
class Run:
    """One measurement or comparison that goes on.

    Args:
        ids: Of the measurements, one per subject.
        done_s: Planned seconds that are done.
        results: Of each process so far, per subject.
    """

    bench: Bench
    subjects: tuple[Subject, ...]
    spec: MeasureSpec
    sensor: EnergySensor | NoSensor
    ids: tuple[str, ...] = ()
    done_s: float = 0.0
    results: list[list[WorkerResult]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ids = tuple(uuid.uuid4().hex for _ in self.subjects)
        self.results = [[] for _ in self.subjects]

    def job(self, which: int, number: int, *, is_measured: bool = True) -> WorkerJob:
        """The job of one process of one subject."""
        job = worker_job(self.bench.settings, self.subjects[which], self.spec, seed=number)
        folder = self.bench.settings.samples_dir
        if folder is None or not is_measured:
            return job
        prefix = str(Path(folder) / self.ids[which] / f"process-{number}")
        return job.model_copy(update={"samples_prefix": prefix})

    def advance(self, seconds: float, what: str) -> None:
        """Tell that a step of so many planned seconds is done."""
        self.done_s += seconds
        self.bench.on_progress(min(1.0, self.done_s / max(self.planned_s(), 1e-9)), what)

    def burst_s(self) -> float:
        """Planned seconds of one process up to its last burst."""
        return START_S + self.spec.warm_up_s + self.spec.min_steady_s

    def paced_s(self) -> float:
        """Planned seconds of the paced runs of one process."""
        return (self.spec.paced_period_ms or 0.0) * self.spec.paced_runs / 1e3

    def energy_s(self) -> float:
        """Planned seconds of the energy windows of one subject."""
        if isinstance(self.sensor, NoSensor) or self.spec.energy_windows == 0:
            return 0.0
        facts = self.sensor.facts()
        window_s = facts.settle_s + plan_window_s(facts, self.spec.energy_window_s) + facts.tail_s
        return window_s * (2 * self.spec.energy_windows + 1) + self.spec.warm_up_s

    def profile_s(self) -> float:
        """Planned seconds of the operator profile."""
        return PROFILE_S if self.spec.is_profiled else 0.0

    def planned_s(self) -> float:
        """Planned seconds altogether."""
        each_s = self.spec.processes * (self.burst_s() + self.paced_s()) + self.energy_s()
        return len(self.subjects) * each_s + self.profile_s()

    def refuse_energy(self) -> str | None:
        """Why energy is left out, of all subjects alike; None if there is time for it."""
        each_s = START_S + ENERGY_MARGIN * self.energy_s()
        needed_s = len(self.subjects) * each_s + self.profile_s()
        left_s = self.bench.until_s - time.monotonic()
        if needed_s <= left_s:
            return None
        return (
            f"energy was not measured: its windows need {needed_s:.0f} s, and {left_s:.0f} s are "
            "left of the job's time; raise max_job_s under [measure], or the policy's max_probe_s"
        )


def worker_job(settings: Settings, subject: Subject, spec: MeasureSpec, *, seed: int) -> WorkerJob:
    """The job of a process of a subject; `seed` is that of its bootstrap."""
    return WorkerJob(
        runtime=subject.runtime,
        model_path=subject.model_path,
        threads=spec.threads or settings.threads,
        is_spinning_allowed=settings.is_spinning_allowed,
        affinity=settings.affinity,
        max_memory_bytes=settings.max_memory_bytes,
        golden=subject.golden,
        warm_up_s=spec.warm_up_s,
        bootstrap_seed=seed,
        spawned_at_ns=0,
        proc_root=str(Path(settings.root) / "proc"),
    )
