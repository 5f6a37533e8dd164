"""Putting a record together from what the processes of a measurement found."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab_agent import hardware
from trimtab_agent.measure import statistics as stats
from trimtab_agent.measure.jobs import (
    ProcessMemory,
    Settings,
    Subject,
    TimedRuns,
    WorkerResult,
)
from trimtab_agent.runtimes.table import installed_runtimes
from trimtab_protocol.measurement import (
    ColdStart,
    Condition,
    Energy,
    Heat,
    Latency,
    Measurement,
    MeasureSpec,
    Memory,
    OperatorProfile,
    PacedLatency,
    WarmUp,
)
from trimtab_protocol.reading import absent

NO_PEAK = "VmHWM cannot be read from /proc/self/status"
NO_INFERENCE_PEAK = f"{NO_PEAK}, or /proc/self/clear_refs cannot be written"
NO_FOOTPRINT = "/proc/self/smaps_rollup cannot be read"
NOT_ALIKE = "of a pair, whoever starts second shares the runtime's pages with the first"


@dataclass(frozen=True)
class Findings:
    """Everything that was found for one subject.

    Args:
        measurement_id: Also the name of the folder of its samples.
        results: Of each process, with timed runs.
        is_in_pairs: Two subjects ran in pairs of processes.
        preflight: What was wrong with the machine before.
        started_at: Unix time.
    """

    measurement_id: str
    subject: Subject
    spec: MeasureSpec
    results: Sequence[WorkerResult]
    is_in_pairs: bool
    energy: Energy
    heat: Heat
    preflight: tuple[str, ...]
    operators: OperatorProfile | None
    started_at: float
    duration_s: float


def bursts_of(results: Sequence[WorkerResult]) -> list[TimedRuns]:
    """The back-to-back runs of each process that did some."""
    return [row.burst for row in results if row.burst is not None]


def assemble(settings: Settings, found: Findings) -> Measurement:
    """Put the record together from what the processes found."""
    results, subject = found.results, found.subject
    threads = found.spec.threads or settings.threads
    bursts = bursts_of(results)
    stability, reasons = stats.judge_stability(bursts, threads, found.heat.throttling)
    return Measurement(
        measurement_id=found.measurement_id,
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
        latency=latency_of(bursts),
        paced=_paced(found),
        memory=memory_of([row.memory for row in results], is_in_pairs=found.is_in_pairs),
        energy=found.energy,
        stability=stability,
        stability_reasons=reasons,
        heat=found.heat,
        operators=found.operators,
        are_samples_kept=all(row.are_samples_kept for row in results),
        started_at=found.started_at,
        duration_s=found.duration_s,
    )


def latency_of(rows: Sequence[TimedRuns]) -> Latency:
    """One figure per percentile from the timed runs of several processes."""
    return Latency(
        processes=len(rows),
        runs=sum(row.runs for row in rows),
        p50_ms=stats.percentile_reading(rows, 50),
        p90_ms=stats.percentile_reading(rows, 90),
        p95_ms=stats.percentile_reading(rows, 95),
        p99_ms=stats.percentile_reading(rows, 99),
        max_ms=stats.known_ms(max(row.max_ns for row in rows)),
        mad_ms=stats.median_ms([row.mad_ns for row in rows]),
        outliers=sum(row.outliers for row in rows),
        cpu_ms=stats.median_ms([row.cpu_ns_per_run for row in rows]),
    )


def memory_of(rows: Sequence[ProcessMemory], *, is_in_pairs: bool) -> Memory:
    """Medians over processes; a figure that any process could not read is absent.

    Afterwards both processes of a pair are alive, and what they share is divided alike. Before a
    model is loaded one of them is alone, so that figure would be another one of the same model.
    """
    over = [
        row.peak_bytes - row.baseline_bytes
        if row.peak_bytes is not None and row.baseline_bytes is not None
        else None
        for row in rows
    ]
    median = stats.median_bytes
    baseline_pss = median([row.baseline_pss_bytes for row in rows], NO_FOOTPRINT)
    baseline_uss = median([row.baseline_uss_bytes for row in rows], NO_FOOTPRINT)
    if is_in_pairs:
        baseline_pss = baseline_uss = absent(NOT_ALIKE)
    return Memory(
        peak_bytes=median([row.peak_bytes for row in rows], NO_PEAK),
        load_peak_bytes=median([row.load_peak_bytes for row in rows], NO_PEAK),
        inference_peak_bytes=median([row.inference_peak_bytes for row in rows], NO_INFERENCE_PEAK),
        baseline_bytes=median([row.baseline_bytes for row in rows], NO_PEAK),
        over_baseline_bytes=median(over, NO_PEAK),
        rss_bytes=median([row.rss_bytes for row in rows], NO_FOOTPRINT),
        pss_bytes=median([row.pss_bytes for row in rows], NO_FOOTPRINT),
        uss_bytes=median([row.uss_bytes for row in rows], NO_FOOTPRINT),
        baseline_pss_bytes=baseline_pss,
        baseline_uss_bytes=baseline_uss,
    )


def read_condition(
    settings: Settings, subject: Subject, result: WorkerResult, threads: int
) -> Condition:
    """Under which circumstances a worker ran."""
    root = Path(settings.root)
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


def _paced(found: Findings) -> PacedLatency | None:
    period_ms = found.spec.paced_period_ms
    rows = [row.paced for row in found.results if row.paced is not None]
    if period_ms is None or not rows:
        return None
    return PacedLatency(
        period_ms=period_ms, latency=latency_of(rows), late=sum(row.late for row in rows)
    )
