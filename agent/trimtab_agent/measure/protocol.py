"""The measuring protocol: several fresh processes, then statistics.

For one subject: `spec.processes` workers one after the other. For a comparison: pairs of workers,
both alive, which run in turns of short blocks in ABBA order, so that whatever the machine does in
the meantime hits both alike. Energy and operators are taken in processes of their own.
Only one measurement runs on a machine at a time: a lock file sees to that.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from trimtab_agent.energy.base import EnergySensor, NoSensor, SensorFacts
from trimtab_agent.energy.measure import measure_energy, plan_window_s
from trimtab_agent.energy.table import find_sensor
from trimtab_agent.heat import HeatWatch, preflight
from trimtab_agent.heat.throttle import Ask
from trimtab_agent.measure import statistics as stats
from trimtab_agent.measure.assemble import Findings, assemble, bursts_of
from trimtab_agent.measure.jobs import Settings, Subject, WorkerJob, WorkerResult
from trimtab_agent.measure.lock import machine_lock
from trimtab_agent.measure.samples import prune_samples
from trimtab_agent.measure.session import WorkerSession
from trimtab_agent.pi_firmware import firmware_asker
from trimtab_agent.profile.take import take_profile
from trimtab_protocol.errors import TrimtabError
from trimtab_protocol.measurement import (
    Comparison,
    Energy,
    Heat,
    Measurement,
    MeasureSpec,
    OperatorProfile,
)
from trimtab_protocol.reading import absent

BLOCKS = 4
"""Blocks of each worker of a pair; even, so that each pair is balanced in itself."""

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
            done last.
        until_s: CLOCK_MONOTONIC at which the job is killed: energy that does not fit is left out.
    """

    settings: Settings
    on_progress: Progress = _ignore_progress
    until_s: float = inf


@dataclass
class _Run:
    """One measurement or comparison that goes on."""

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
        job = _worker_job(self.bench.settings, self.subjects[which], self.spec, seed=number)
        folder = self.bench.settings.samples_dir
        if folder is None or not is_measured:
            return job
        prefix = str(Path(folder) / self.ids[which] / f"process-{number}")
        return job.model_copy(update={"samples_prefix": prefix})

    def advance(self, seconds: float, what: str) -> None:
        """Tell that a step of so many planned seconds is done."""
        self.done_s += seconds
        self.bench.on_progress(min(1.0, self.done_s / max(self.planned_s(), 1e-9)), what)

    def process_s(self) -> float:
        """Planned seconds of one process."""
        paced_s = (self.spec.paced_period_ms or 0.0) * self.spec.paced_runs / 1e3
        return START_S + self.spec.warm_up_s + self.spec.min_steady_s + paced_s

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
        each_s = self.spec.processes * self.process_s() + self.energy_s()
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


def check_subject(bench: Bench, subject: Subject, timeout_s: float = 120.0) -> WorkerResult:
    """Load a model once and run its golden vectors.

    Raises:
        ModelError: It does not load, crashes, or computes something else.
    """
    job = _worker_job(bench.settings, subject, MeasureSpec(), seed=0)
    with WorkerSession(job.model_copy(update={"is_warmed_up": False}), timeout_s) as worker:
        return worker.finish()


def measure(bench: Bench, subject: Subject, spec: MeasureSpec) -> Measurement:
    """Measure one subject.

    Raises:
        ModelError: A process failed; the first failure ends the measurement.
    """
    return _take(bench, (subject,), spec, _time_alone)[0]


def compare(
    bench: Bench, candidate: Subject, incumbent: Subject, spec: MeasureSpec
) -> tuple[Measurement, Measurement, Comparison]:
    """Measure two subjects in pairs of processes that take turns on the same machine.

    Raises:
        ModelError: A process of either failed.
    """
    results: list[Sequence[WorkerResult]] = []
    first, second = _take(bench, (candidate, incumbent), spec, _time_in_turns, results)
    bursts = [bursts_of(rows) for rows in results]
    comparison = Comparison(
        incumbent=incumbent.artifact,
        p50_ratio=stats.ratio_reading(bursts[0], bursts[1], 50),
        p90_ratio=stats.ratio_reading(bursts[0], bursts[1], 90),
    )
    return first, second, comparison


def _take(
    bench: Bench,
    subjects: tuple[Subject, ...],
    spec: MeasureSpec,
    time_runs: Callable[[_Run], None],
    results: list[Sequence[WorkerResult]] | None = None,
) -> list[Measurement]:
    settings = bench.settings
    with machine_lock(settings.lock):
        started_at, began = time.time(), time.monotonic()
        ask = firmware_asker(Path(settings.root))
        complaints = preflight(Path(settings.root), settings.affinity, ask)
        meter = Path(settings.meter) if settings.meter else None
        run = _Run(bench, subjects, spec, find_sensor(Path(settings.root), meter))
        with _watched(settings, ask) as heat:
            time_runs(run)
        refusal = run.refuse_energy()
        energies = [_energy(run, which, refusal) for which in range(len(subjects))]
        # Two full profiles would not fit into one message, so only the first has one.
        profile = _profile(run)
        duration_s = time.monotonic() - began
    if settings.samples_dir is not None:
        prune_samples(Path(settings.samples_dir), settings.max_samples_bytes)
    if results is not None:
        results += run.results
    found = (
        Findings(
            measurement_id=run.ids[which],
            subject=subject,
            spec=spec,
            results=run.results[which],
            energy=energies[which],
            heat=heat[0],
            preflight=complaints,
            operators=profile if which == 0 else None,
            started_at=started_at,
            duration_s=duration_s,
        )
        for which, subject in enumerate(subjects)
    )
    return [assemble(settings, row) for row in found]


def _time_alone(run: _Run) -> None:
    """One process after the other."""
    spec = run.spec
    for number in range(spec.processes):
        with WorkerSession(run.job(0, number), spec.max_process_s) as worker:
            worker.burst(spec.min_runs, spec.min_steady_s)
            _pace(worker, spec)
            run.results[0].append(worker.finish())
        run.advance(run.process_s(), f"process {number + 1} of {spec.processes}")


def _time_in_turns(run: _Run) -> None:
    """Pairs of processes, A B, B A, A B, …; within each, blocks A B, B A, A B, B A."""
    spec = run.spec
    runs, seconds = -(-spec.min_runs // BLOCKS), spec.min_steady_s / BLOCKS
    for number in range(spec.processes):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        with ExitStack() as stack:
            workers: dict[int, WorkerSession] = {}
            for which in order:
                session = WorkerSession(run.job(which, number), spec.max_process_s)
                workers[which] = stack.enter_context(session)
            for block in range(BLOCKS):
                for which in order if block % 2 == 0 else order[::-1]:
                    workers[which].burst(runs, seconds)
                run.advance(2 * run.process_s() / BLOCKS, f"pair {number + 1} of {spec.processes}")
            for which in order:
                _pace(workers[which], spec)
            for which in order:
                run.results[which].append(workers[which].finish())


def _pace(worker: WorkerSession, spec: MeasureSpec) -> None:
    if spec.paced_period_ms is not None:
        worker.paced(spec.paced_period_ms, spec.paced_runs)


def _energy(run: _Run, which: int, refusal: str | None) -> Energy:
    """Energy per inference in windows of its own, or the reason why there is none."""
    spec, sensor = run.spec, run.sensor
    if spec.energy_windows == 0:
        return Energy(per_inference_mj=absent("no energy windows were asked for"))
    if isinstance(sensor, NoSensor):
        return Energy(per_inference_mj=absent(sensor.reason))
    facts = sensor.facts()
    if refusal is not None:
        return _no_energy(facts, refusal)
    try:
        job = run.job(which, spec.processes, is_measured=False)
        with WorkerSession(job, spec.max_process_s) as worker:
            found = measure_energy(sensor, worker, spec.energy_windows, spec.energy_window_s)
    except TrimtabError as error:
        found = _no_energy(facts, f"energy was not measured: {error.message}")
    run.advance(run.energy_s(), "energy")
    return found


def _no_energy(facts: SensorFacts, reason: str) -> Energy:
    """Which sensor it was, and why there is no figure."""
    return Energy(
        per_inference_mj=absent(reason), source=facts.source, scope=facts.scope, kind=facts.kind
    )


def _profile(run: _Run) -> OperatorProfile | None:
    spec, settings = run.spec, run.bench.settings
    if not spec.is_profiled:
        return None
    p50_ms = stats.percentile_reading(bursts_of(run.results[0]), 50).value
    threads = spec.threads or settings.threads
    found = take_profile(run.subjects[0], settings, threads, p50_ms, spec.max_process_s)
    run.advance(run.profile_s(), "operators")
    return found


@contextmanager
def _watched(settings: Settings, ask: Ask | None) -> Iterator[list[Heat]]:
    """Temperature, clocks and throttling over the timed processes; filled when they have ended."""
    found: list[Heat] = []
    watch = HeatWatch(Path(settings.root), settings.affinity, ask)
    watch.start()
    try:
        yield found
    finally:
        found.append(watch.stop())


def _worker_job(settings: Settings, subject: Subject, spec: MeasureSpec, *, seed: int) -> WorkerJob:
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
