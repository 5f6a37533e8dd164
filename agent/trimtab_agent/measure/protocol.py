"""The measuring protocol: several fresh processes, then statistics.

For one subject: `spec.processes` workers one after the other. For a comparison: candidate and
incumbent in ABBA order (A B, B A, A B, …), so that a slow drift of the machine hits both alike.
Only one measurement runs on a machine at a time: a lock file sees to that.
"""

from __future__ import annotations

import fcntl
import os
import platform
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trimtab_agent import hardware
from trimtab_agent.energy.base import EnergySensor, NoSensor
from trimtab_agent.energy.table import find_sensor
from trimtab_agent.energy.windows import Window, energy_per_inference
from trimtab_agent.heat import HeatWatch, preflight
from trimtab_agent.measure import statistics as stats
from trimtab_agent.measure.jobs import Settings, Subject, WorkerJob, WorkerResult
from trimtab_agent.processes import kill_group, read_tail, start_module
from trimtab_agent.profile.take import take_profile
from trimtab_agent.runtimes.base import code_of_failure
from trimtab_agent.runtimes.table import installed_runtimes
from trimtab_protocol.errors import (
    ErrorCode,
    ModelError,
    StorageError,
    TrimtabError,
    error_from_code,
)
from trimtab_protocol.measurement import (
    ColdStart,
    Comparison,
    Condition,
    Energy,
    Heat,
    Latency,
    Measurement,
    MeasureSpec,
    Memory,
    OperatorProfile,
    WarmUp,
)
from trimtab_protocol.reading import absent, known

IDLE_WINDOW_S = 2.0
LOAD_WINDOWS = 2

Progress = Callable[[int, int], None]


def _ignore_progress(_done: int, _total: int) -> None:
    return


@dataclass(frozen=True)
class Findings:
    """Everything that was found for one subject, before it is put together."""

    subject: Subject
    spec: MeasureSpec
    results: Sequence[WorkerResult]
    energy: Energy
    heat: Heat
    preflight: tuple[str, ...]
    operators: OperatorProfile | None
    started_at: float
    duration_s: float


@dataclass(frozen=True)
class Bench:
    """Where and how measurements run.

    Args:
        settings: The device's.
        on_progress: Called after each process with (done, total).
    """

    settings: Settings
    on_progress: Progress = _ignore_progress


def check_subject(bench: Bench, subject: Subject, timeout_s: float = 120.0) -> WorkerResult:
    """Load a model once and run its golden vectors.

    Raises:
        ModelError: It does not load, crashes, or computes something else.
    """
    job = _worker_job(bench, subject, MeasureSpec(), is_timed=False)
    return run_worker_process(job, timeout_s)


def measure(bench: Bench, subject: Subject, spec: MeasureSpec) -> Measurement:
    """Measure one subject.

    Raises:
        ModelError: A process failed; the first failure ends the measurement.
    """
    results: list[WorkerResult] = []
    settings = bench.settings
    with machine_lock(bench.settings.lock):
        started_at, began = time.time(), time.monotonic()
        complaints = preflight(_root(settings), settings.affinity)
        with _watched(settings) as heat:
            for number in range(spec.processes):
                results.append(_run_one(bench, subject, spec, number))
                bench.on_progress(number + 1, spec.processes)
        energy = measure_energy(bench, subject, spec)
        operators = _profile(bench, subject, spec, results)
        duration_s = time.monotonic() - began
    found = Findings(
        subject=subject,
        spec=spec,
        results=results,
        energy=energy,
        heat=heat[0],
        preflight=complaints,
        operators=operators,
        started_at=started_at,
        duration_s=duration_s,
    )
    return assemble(settings, found)


def compare(
    bench: Bench, candidate: Subject, incumbent: Subject, spec: MeasureSpec
) -> tuple[Measurement, Measurement, Comparison]:
    """Measure two subjects in ABBA order on the same machine.

    Raises:
        ModelError: A process of either failed.
    """
    results: dict[int, list[WorkerResult]] = {0: [], 1: []}
    with machine_lock(bench.settings.lock):
        started_at, began = time.time(), time.monotonic()
        complaints = preflight(_root(bench.settings), bench.settings.affinity)
        with _watched(bench.settings) as heat:
            for number in range(spec.processes):
                order = (0, 1) if number % 2 == 0 else (1, 0)
                for which in order:
                    subject = (candidate, incumbent)[which]
                    results[which].append(_run_one(bench, subject, spec, number))
                bench.on_progress(number + 1, spec.processes)
        energies = [measure_energy(bench, subject, spec) for subject in (candidate, incumbent)]
        # Two full profiles would not fit into one message, so only the candidate has one.
        profiles = (_profile(bench, candidate, spec, results[0]), None)
        duration_s = time.monotonic() - began
    first, second = (
        assemble(
            bench.settings,
            Findings(
                subject=subject,
                spec=spec,
                results=results[which],
                energy=energies[which],
                heat=heat[0],
                preflight=complaints,
                operators=profiles[which],
                started_at=started_at,
                duration_s=duration_s,
            ),
        )
        for which, subject in enumerate((candidate, incumbent))
    )
    comparison = Comparison(
        incumbent=incumbent.artifact,
        p50_ratio=stats.ratio_reading(results[0], results[1], 50),
        p90_ratio=stats.ratio_reading(results[0], results[1], 90),
    )
    return first, second, comparison


def assemble(settings: Settings, found: Findings) -> Measurement:
    """Put the record together from what the processes found."""
    results, subject = found.results, found.subject
    threads = found.spec.threads or settings.threads
    stability, reasons = stats.judge_stability(results, threads, found.heat.throttling)
    return Measurement(
        measurement_id=uuid.uuid4().hex,
        artifact=subject.artifact,
        size_bytes=subject.size_bytes,
        condition=read_condition(settings, subject, results[0], threads).model_copy(
            update={"preflight": found.preflight, "is_degraded": bool(found.preflight)}
        ),
        spec=found.spec,
        cold_start=ColdStart(
            spawn_ms=stats.median_ms([row.spawn_ns for row in results]),
            import_ms=stats.median_ms([row.import_ns for row in results]),
            load_ms=stats.median_ms([row.load_ns for row in results]),
            first_inference_ms=stats.median_ms([row.first_inference_ns for row in results]),
        ),
        warm_up=WarmUp(
            runs=sum(row.warm_up_runs for row in results),
            duration_s=sum(row.warm_up_ns for row in results) / 1e9,
            is_converged=all(row.is_warm_up_converged for row in results),
        ),
        latency=Latency(
            processes=len(results),
            runs=sum(row.runs for row in results),
            p50_ms=stats.percentile_reading(results, 50),
            p90_ms=stats.percentile_reading(results, 90),
            p95_ms=stats.percentile_reading(results, 95),
            p99_ms=stats.percentile_reading(results, 99),
            max_ms=known(max(row.max_ns for row in results) / stats.NS_PER_MS),
            cpu_ms=stats.median_ms([row.cpu_ns_per_run for row in results]),
        ),
        memory=_memory(results),
        energy=found.energy,
        stability=stability,
        stability_reasons=reasons,
        heat=found.heat,
        operators=found.operators,
        started_at=found.started_at,
        duration_s=found.duration_s,
    )


def read_condition(
    settings: Settings, subject: Subject, result: WorkerResult, threads: int
) -> Condition:
    """Under which circumstances a worker ran."""
    root = _root(settings)
    facts = hardware.read_hardware(root)
    governor = hardware.read_governor(root)
    return Condition(
        device_class=settings.device_class,
        runtime=subject.runtime,
        runtime_version=result.runtime_version,
        runtime_package=result.runtime_package,
        providers=result.providers,
        threads=threads,
        affinity=result.affinity,
        is_spinning_allowed=settings.is_spinning_allowed,
        board=facts.board,
        cpu=facts.cpu,
        kernel=facts.kernel,
        machine=facts.machine,
        python=platform.python_version(),
        memory_total_bytes=facts.memory_total_bytes,
        page_bytes=facts.page_bytes,
        governor_name=governor,
        load_average_1m=hardware.read_load_average_1m(root),
        boot_id=facts.boot_id,
        fingerprint=hardware.fingerprint(facts, threads, installed_runtimes()),
        **hardware.condition_facts(root, settings.affinity),
    )


def _root(settings: Settings) -> Path:
    return Path(settings.proc_root).parent


@contextmanager
def _watched(settings: Settings) -> Iterator[list[Heat]]:
    """Temperature, clocks and throttling over the timed processes; filled when they have ended."""
    found: list[Heat] = []
    watch = HeatWatch(_root(settings), settings.affinity)
    watch.start()
    try:
        yield found
    finally:
        found.append(watch.stop())


def _profile(
    bench: Bench, subject: Subject, spec: MeasureSpec, results: Sequence[WorkerResult]
) -> OperatorProfile | None:
    if not spec.is_profiled:
        return None
    threads = spec.threads or bench.settings.threads
    p50_ms = stats.percentile_reading(results, 50).value
    return take_profile(subject, bench.settings, threads, p50_ms, spec.max_process_s)


def measure_energy(bench: Bench, subject: Subject, spec: MeasureSpec) -> Energy:
    """Energy per inference in windows of its own, or the reason why there is none."""
    sensor = find_sensor(Path(bench.settings.sys_root).parent)
    if isinstance(sensor, NoSensor):
        return Energy(per_inference_mj=absent(sensor.reason))
    facts = sensor.facts()
    try:
        idle, load = [_idle_window(sensor)], []
        for number in range(LOAD_WINDOWS):
            load.append(_load_window(bench, subject, spec, sensor, number))
            idle.append(_idle_window(sensor))
    except StorageError as error:
        return Energy(per_inference_mj=absent(error.message), source=facts.name, scope=facts.scope)
    return Energy(
        per_inference_mj=energy_per_inference(idle, load), source=facts.name, scope=facts.scope
    )


def run_worker_process(job: WorkerJob, timeout_s: float) -> WorkerResult:
    """Run one worker in a fresh process.

    Raises:
        ModelError: It failed, crashed (`model.crash`) or took too long (`model.timeout`).
    """
    with tempfile.TemporaryDirectory(prefix="trimtab-worker-") as name:
        folder = Path(name)
        job_path, result_path, stderr_path = (folder / part for part in ("job", "result", "stderr"))
        stamped = job.model_copy(update={"spawned_at_ns": time.monotonic_ns()})
        job_path.write_text(stamped.model_dump_json())
        process = start_module(
            "trimtab_agent.measure.worker",
            [str(job_path), str(result_path), str(os.getpid())],
            stderr_path=stderr_path,
        )
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ModelError(
                f"did not end within {timeout_s:.0f} s", code=ErrorCode.MODEL_TIMEOUT
            ) from error
        finally:
            kill_group(process)
        if process.returncode != 0 or not result_path.exists():
            raise _crash(process.returncode, read_tail(stderr_path))
        result = WorkerResult.model_validate_json(result_path.read_bytes())
    if result.error_code is not None:
        raise error_from_code(result.error_code, result.detail)
    return result


@contextmanager
def machine_lock(path: str | None) -> Iterator[None]:
    """Wait until nobody else measures on this machine."""
    if path is None:
        yield
        return
    descriptor = _open_lock(Path(path))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    """Open the lock of all users; made only if it is not there.

    In a sticky folder such as /tmp the kernel refuses O_CREAT on another user's file, even to root
    (fs.protected_regular, Documentation/admin-guide/sysctl/fs.rst).
    """
    try:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.fchmod(descriptor, 0o644)  # whatever the umask is
            return descriptor
    except OSError as error:
        raise StorageError(f"cannot open the measuring lock {path}: {error.strerror}") from error


def _run_one(bench: Bench, subject: Subject, spec: MeasureSpec, number: int) -> WorkerResult:
    job = _worker_job(bench, subject, spec, is_timed=True, seed=number)
    return run_worker_process(job, spec.max_process_s)


def _worker_job(
    bench: Bench, subject: Subject, spec: MeasureSpec, *, is_timed: bool, seed: int = 0
) -> WorkerJob:
    settings = bench.settings
    return WorkerJob(
        runtime=subject.runtime,
        model_path=subject.model_path,
        threads=spec.threads or settings.threads,
        is_spinning_allowed=settings.is_spinning_allowed,
        affinity=settings.affinity,
        max_memory_bytes=settings.max_memory_bytes,
        golden=subject.golden,
        is_timed=is_timed,
        warm_up_s=spec.warm_up_s,
        min_runs=spec.min_runs,
        min_steady_s=spec.min_steady_s,
        bootstrap_seed=seed,
        spawned_at_ns=0,
        proc_root=settings.proc_root,
    )


def _memory(results: Sequence[WorkerResult]) -> Memory:
    reason = "VmHWM cannot be read from /proc/self/status"
    over = [
        row.peak_bytes - row.baseline_bytes
        if row.peak_bytes is not None and row.baseline_bytes is not None
        else None
        for row in results
    ]
    return Memory(
        peak_bytes=stats.median_bytes([row.peak_bytes for row in results], reason),
        load_peak_bytes=stats.median_bytes([row.load_peak_bytes for row in results], reason),
        baseline_bytes=stats.median_bytes([row.baseline_bytes for row in results], reason),
        over_baseline_bytes=stats.median_bytes(over, reason),
    )


def _idle_window(sensor: EnergySensor) -> Window:
    began, before_mj = time.monotonic(), sensor.read_mj()
    time.sleep(IDLE_WINDOW_S)
    return Window(time.monotonic() - began, sensor.read_mj() - before_mj, 0)


def _load_window(
    bench: Bench, subject: Subject, spec: MeasureSpec, sensor: EnergySensor, number: int
) -> Window:
    """The worker's own start is inside the window; at 20,000 runs it is a small part, and counted."""
    began, before_mj = time.monotonic(), sensor.read_mj()
    result = _run_one(bench, subject, spec, number)
    duration_s = time.monotonic() - began
    inferences = result.runs + result.warm_up_runs + 1
    return Window(duration_s, sensor.read_mj() - before_mj, inferences)


def _crash(return_code: int, stderr: str) -> TrimtabError:
    how = f"ended with code {return_code}"
    if return_code < 0:
        how = f"was killed by {signal.Signals(-return_code).name}"
    code = code_of_failure(stderr, ErrorCode.MODEL_CRASH)
    return ModelError(f"the process that ran the model {how}: {stderr}", code=code)
