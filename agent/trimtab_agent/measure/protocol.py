"""The measuring protocol: several fresh processes, then statistics.

For one subject: `spec.processes` workers one after the other. For a comparison: pairs of workers,
both alive, which run in turns of short blocks in ABBA order, so that whatever the machine does in
the meantime hits both alike. Energy and operators are taken in processes of their own.
Only one measurement runs on a machine at a time: a lock file sees to that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from trimtab_agent.energy.base import NoSensor, SensorFacts
from trimtab_agent.energy.measure import measure_energy
from trimtab_agent.energy.table import find_sensor
from trimtab_agent.heat import HeatWatch, preflight
from trimtab_agent.heat.throttle import Ask
from trimtab_agent.measure import statistics as stats
from trimtab_agent.measure.assemble import Findings, assemble, bursts_of
from trimtab_agent.measure.jobs import Settings, Subject, WorkerResult
from trimtab_agent.measure.lock import machine_lock
from trimtab_agent.measure.run import Bench, Run, worker_job
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

WAITING = "waiting: another measurement goes on"


def check_subject(bench: Bench, subject: Subject, timeout_s: float = 120.0) -> WorkerResult:
    """Load a model once and run its golden vectors.

    Raises:
        ModelError: It does not load, crashes, or computes something else.
    """
    job = worker_job(bench.settings, subject, MeasureSpec(), seed=0)
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
    time_runs: Callable[[Run], None],
    results: list[Sequence[WorkerResult]] | None = None,
) -> list[Measurement]:
    settings = bench.settings
    with machine_lock(settings.lock, lambda: bench.on_progress(0.0, WAITING)):
        started_at, began = time.time(), time.monotonic()
        ask = firmware_asker(Path(settings.root))
        complaints = preflight(Path(settings.root), settings.affinity, ask)
        meter = Path(settings.meter) if settings.meter else None
        run = Run(bench, subjects, spec, find_sensor(Path(settings.root), meter))
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
            is_in_pairs=len(subjects) > 1,
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


def _time_alone(run: Run) -> None:
    """One process after the other."""
    spec = run.spec
    for number in range(spec.processes):
        what = f"process {number + 1} of {spec.processes}"
        with WorkerSession(run.job(0, number), spec.max_process_s) as worker:
            worker.burst(spec.min_runs, spec.min_steady_s)
            run.advance(run.burst_s(), what)
            _pace(run, worker, what)
            run.results[0].append(worker.finish())


def _time_in_turns(run: Run) -> None:
    """Pairs of processes, A B, B A, A B, …; within each, blocks A B, B A, A B, B A."""
    spec = run.spec
    runs, seconds = -(-spec.min_runs // BLOCKS), spec.min_steady_s / BLOCKS
    for number in range(spec.processes):
        what = f"pair {number + 1} of {spec.processes}"
        order = (0, 1) if number % 2 == 0 else (1, 0)
        with ExitStack() as stack:
            workers: dict[int, WorkerSession] = {}
            for which in order:
                session = WorkerSession(run.job(which, number), spec.max_process_s)
                workers[which] = stack.enter_context(session)
            for block in range(BLOCKS):
                for which in order if block % 2 == 0 else order[::-1]:
                    workers[which].burst(runs, seconds)
                run.advance(2 * run.burst_s() / BLOCKS, what)
            for which in order:
                _pace(run, workers[which], what)
            for which in order:
                run.results[which].append(workers[which].finish())


def _pace(run: Run, worker: WorkerSession, what: str) -> None:
    if run.spec.paced_period_ms is not None:
        worker.paced(run.spec.paced_period_ms, run.spec.paced_runs)
        run.advance(run.paced_s(), f"{what}, paced")


def _energy(run: Run, which: int, refusal: str | None) -> Energy:
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


def _profile(run: Run) -> OperatorProfile | None:
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
