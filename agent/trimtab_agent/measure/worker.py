"""One fresh process that runs one model: `python -m trimtab_agent.measure.worker JOB RESULT PARENT`.

The order is the protocol: threads and affinity before the import, phases of the cold start, golden
vectors, warm-up until it converges, then timed runs with nothing but the inference in the timer.
Raw nanoseconds stay here; what goes out are percentiles with block-bootstrap replicates of them.
"""

from __future__ import annotations

import os
import time

STARTED_AT_NS = time.monotonic_ns()

import gc  # noqa: E402 - the first statement of the process takes the time
import resource  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

from trimtab_agent.measure.jobs import PercentileRow, WorkerJob, WorkerResult  # noqa: E402
from trimtab_agent.measure.process_memory import (  # noqa: E402
    read_involuntary_switches,
    read_status_bytes,
    reset_peak,
)
from trimtab_agent.processes import die_with_parent  # noqa: E402
from trimtab_protocol.errors import ErrorCode, ModelError, TrimtabError  # noqa: E402
from trimtab_protocol.measurement import MIN_RUNS_FOR_PERCENTILE  # noqa: E402

if TYPE_CHECKING:
    import numpy

    from trimtab_agent.runtimes.base import LoadedModel

MAX_RUNS = 20_000
MIN_WARM_UP_RUNS = 10
MAX_WARM_UP_RUNS = 500
MAX_WARM_UP_S = 30.0
CONVERGED_RATIO = 0.02
CONVERGENCE_BLOCK = 10
CONVERGENCE_BLOCK_NS = 20_000_000  # a block of a fast model lasts at least this long
MAX_CONVERGENCE_BLOCK = 400
REPLICATES = 100

Infer = Callable[[], object]


@dataclass(frozen=True)
class Loaded:
    """A model that is ready, and what it took to get there."""

    model: LoadedModel
    facts: dict[str, Any]


def run_worker(job: WorkerJob) -> WorkerResult:
    """Do the job.

    Raises:
        ModelError: The model does not load, run or compute what its golden vectors say.
    """
    _confine(job)
    loaded = _load(job)
    infer = loaded.model.bind(_feeds(job, loaded.model))
    started_ns = time.perf_counter_ns()
    infer()
    facts = loaded.facts | {"first_inference_ns": time.perf_counter_ns() - started_ns}
    if job.golden is not None:
        from trimtab_agent.measure.golden import check_golden  # noqa: PLC0415 - needs numpy

        check_golden(loaded.model, job.golden)
        infer = loaded.model.bind(_feeds(job, loaded.model))
    if job.is_timed:
        facts |= _warm_up(infer, job.warm_up_s)
        facts |= _time_steady(infer, job)
    facts.setdefault("peak_bytes", read_status_bytes("VmHWM", Path(job.proc_root)))
    return WorkerResult(**facts)


def _confine(job: WorkerJob) -> None:
    """Threads inherit the affinity, so it is set before the runtime makes any."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(job.threads)
    if job.affinity:
        try:
            os.sched_setaffinity(0, job.affinity)
        except OSError as error:
            raise ModelError(
                f"cannot run on the CPUs {list(job.affinity)}: {error.strerror}",
                code=ErrorCode.CONFIG_INVALID,
            ) from error
    if job.max_memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (job.max_memory_bytes, job.max_memory_bytes))


def _load(job: WorkerJob) -> Loaded:
    from trimtab_agent.runtimes.table import RUNTIMES  # noqa: PLC0415 - counted as part of the import

    proc = Path(job.proc_root)
    started_ns = time.perf_counter_ns()
    runtime = RUNTIMES[job.runtime]()
    imported_ns = time.perf_counter_ns()
    reset_peak(proc)
    baseline = read_status_bytes("VmHWM", proc)
    load_started_ns = time.perf_counter_ns()
    model = runtime.load(
        Path(job.model_path), job.threads, is_spinning_allowed=job.is_spinning_allowed
    )
    load_ns = time.perf_counter_ns() - load_started_ns
    identity = runtime.identity()
    facts: dict[str, Any] = {
        "runtime_version": identity.version,
        "runtime_package": identity.package,
        "providers": identity.providers,
        "affinity": tuple(sorted(os.sched_getaffinity(0))),
        "spawn_ns": STARTED_AT_NS - job.spawned_at_ns,
        "import_ns": imported_ns - started_ns,
        "load_ns": load_ns,
        "baseline_bytes": baseline,
        "load_peak_bytes": read_status_bytes("VmHWM", proc),
    }
    return Loaded(model, facts)


def _feeds(job: WorkerJob, model: LoadedModel) -> dict[str, numpy.ndarray[Any, Any]]:
    """The first golden input where there is one, else values grown from a fixed seed."""
    import numpy  # noqa: PLC0415 - child only

    from trimtab_agent.measure.golden import to_array  # noqa: PLC0415

    if job.golden is not None:
        return {n: to_array(t) for n, t in job.golden.vectors[0].inputs.items()}
    generator = numpy.random.default_rng(0)
    return {
        spec.name: (generator.random(spec.shape) * (1 if "float" in spec.dtype else 2)).astype(
            spec.dtype
        )
        for spec in model.inputs()
    }


def _warm_up(infer: Infer, warm_up_s: float) -> dict[str, Any]:
    """Run until the median of the newest block is within 2 % of the one before."""
    clock = time.perf_counter_ns
    started_ns, runs, is_converged = clock(), 0, False
    blocks: list[int] = []
    length = CONVERGENCE_BLOCK
    while True:
        block = sorted(_timed_runs(infer, length))
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
            return {
                "warm_up_runs": runs,
                "warm_up_ns": clock() - started_ns,
                "is_warm_up_converged": is_converged,
            }


def _timed_runs(infer: Infer, count: int) -> list[int]:
    clock = time.perf_counter_ns
    samples = [0] * count
    for index in range(count):
        started_ns = clock()
        infer()
        samples[index] = clock() - started_ns
    return samples


def _time_steady(infer: Infer, job: WorkerJob) -> dict[str, Any]:
    """Back-to-back runs: at least `min_runs` and `min_steady_s`, at most MAX_RUNS."""
    import numpy  # noqa: PLC0415 - child only

    gc.collect()
    gc.disable()
    samples: list[int] = []
    switches = read_involuntary_switches(Path(job.proc_root))
    started_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
    while len(samples) < job.min_runs or (
        time.perf_counter_ns() - started_ns < job.min_steady_s * 1e9 and len(samples) < MAX_RUNS
    ):
        samples += _timed_runs(infer, 50)
    steady_ns, cpu_ns = time.perf_counter_ns() - started_ns, time.process_time_ns() - cpu_ns
    peak_bytes = read_status_bytes(
        "VmHWM", Path(job.proc_root)
    )  # before the statistics need memory
    gc.enable()
    values = numpy.asarray(samples, numpy.float64)
    half = len(values) // 2
    return {
        "peak_bytes": peak_bytes,
        "runs": len(values),
        "percentiles": _percentiles(values, job.bootstrap_seed),
        "max_ns": int(values.max()),
        "first_half_median_ns": float(numpy.median(values[:half])),
        "second_half_median_ns": float(numpy.median(values[half:])),
        "cpu_ns_per_run": cpu_ns / len(values),
        "involuntary_switches": read_involuntary_switches(Path(job.proc_root)) - switches,
        "steady_ns": steady_ns,
    }


def _percentiles(values: numpy.ndarray[Any, Any], seed: int) -> dict[int, PercentileRow]:
    """Each percentile, and replicates by resampling blocks of consecutive runs.

    Blocks keep what neighbours have in common (Kuensch 1989); their length is n^(1/3).
    """
    import numpy  # noqa: PLC0415 - child only

    count = len(values)
    length = max(1, round(count ** (1 / 3)))
    generator = numpy.random.default_rng(seed)
    starts = generator.integers(0, count - length + 1, size=(REPLICATES, -(-count // length)))
    indices = (starts[:, :, None] + numpy.arange(length)).reshape(REPLICATES, -1)[:, :count]
    wanted = sorted(MIN_RUNS_FOR_PERCENTILE)
    points = numpy.percentile(values, wanted)
    replicates = numpy.percentile(values[indices], wanted, axis=1)
    return {
        percentile: PercentileRow(
            value_ns=float(points[row]), replicates_ns=tuple(replicates[row].tolist())
        )
        for row, percentile in enumerate(wanted)
    }


def main(job_path: Path, result_path: Path, parent_pid: int) -> int:
    """Read the job, do it, write the result; an error is a result too."""
    die_with_parent(parent_pid)
    job = WorkerJob.model_validate_json(job_path.read_bytes())
    try:
        result = run_worker(job)
    except TrimtabError as error:
        result = WorkerResult(error_code=error.code, detail=error.message)
    except MemoryError:
        result = WorkerResult(
            error_code=ErrorCode.MODEL_MEMORY,
            detail=f"needs more than the {job.max_memory_bytes} bytes that a child may have",
        )
    result_path.write_text(result.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
