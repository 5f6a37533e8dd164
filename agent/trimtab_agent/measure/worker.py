"""One fresh process that runs one model: `python -m trimtab_agent.measure.worker JOB SOCKET PARENT`.

The order is the protocol: threads and affinity before the import, phases of the cold start, golden
vectors, warm-up until it converges. Then it says so, and does what it is told, one command after
the other, until it is told to finish. In between it sleeps: nothing of it takes the CPU from the
other model of a comparison.
"""

from __future__ import annotations

import os
import time

STARTED_AT_NS = time.monotonic_ns()

import resource  # noqa: E402 - the first statement of the process takes the time
import socket  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

from trimtab_agent.measure.jobs import (  # noqa: E402
    Action,
    Answer,
    Command,
    ProcessMemory,
    WorkerJob,
    WorkerResult,
)
from trimtab_agent.measure.process_memory import (  # noqa: E402
    read_footprint,
    read_status_bytes,
    reset_peak,
)
from trimtab_agent.measure.timing import (  # noqa: E402
    Samples,
    WarmedUp,
    run_burst,
    run_for,
    run_paced,
    warm_up,
)
from trimtab_agent.processes import die_with_parent  # noqa: E402
from trimtab_protocol.errors import ErrorCode, ModelError, TrimtabError  # noqa: E402

if TYPE_CHECKING:
    import numpy

    from trimtab_agent.runtimes.base import LoadedModel


class Worker:
    """A model that is loaded, checked and warm, and what was found out about it.

    Raises:
        ModelError: The model does not load, run or compute what its golden vectors say.
    """

    def __init__(self, job: WorkerJob) -> None:
        self._job = job
        self._proc = Path(job.proc_root)
        self._burst = Samples(self._proc)
        self._paced = Samples(self._proc)
        confine(job)
        self._facts: dict[str, Any] = {}
        self._memory: dict[str, int | None] = {}
        self._model = self._load()
        self._infer = self._model.bind(_feeds(job, self._model))
        started_ns = time.perf_counter_ns()
        self._infer()
        self._facts["first_inference_ns"] = time.perf_counter_ns() - started_ns
        if job.golden is not None:
            from trimtab_agent.measure.golden import check_golden  # noqa: PLC0415 - needs numpy

            check_golden(self._model, job.golden)
            self._infer = self._model.bind(_feeds(job, self._model))
        self._warmed_up = warm_up(self._infer, job.warm_up_s) if job.is_warmed_up else None

    def obey(self, command: Command) -> Answer:
        """Do one command.

        Raises:
            ModelError: The model failed at it.
        """
        started_s, runs, result = time.monotonic(), 0, None
        if command.action is Action.BURST:
            runs = run_burst(self._infer, self._burst, command.runs, command.seconds)
        elif command.action is Action.PACED:
            period_ns = round(command.period_ms * 1e6)
            runs = run_paced(self._infer, self._paced, period_ns, command.runs)
        elif command.action is Action.LOAD:
            runs = run_for(self._infer, command.seconds)
        ended_s = time.monotonic()
        if command.action is Action.FINISH:
            result = self._finish()
        return Answer(started_s=started_s, ended_s=ended_s, runs=runs, result=result)

    def _load(self) -> LoadedModel:
        from trimtab_agent.runtimes.table import RUNTIMES  # noqa: PLC0415 - part of the import

        job = self._job
        started_ns = time.perf_counter_ns()
        runtime = RUNTIMES[job.runtime]()
        imported_ns = time.perf_counter_ns()
        footprint = read_footprint(self._proc)
        reset_peak(self._proc)
        baseline_bytes = read_status_bytes("VmHWM", self._proc)
        load_started_ns = time.perf_counter_ns()
        model = runtime.load(
            Path(job.model_path), job.threads, is_spinning_allowed=job.is_spinning_allowed
        )
        load_ns = time.perf_counter_ns() - load_started_ns
        load_peak_bytes = read_status_bytes("VmHWM", self._proc)
        self._is_peak_reset = reset_peak(self._proc)
        identity = runtime.identity()
        self._memory = {
            "baseline_bytes": baseline_bytes,
            "baseline_pss_bytes": footprint.pss_bytes if footprint else None,
            "baseline_uss_bytes": footprint.uss_bytes if footprint else None,
            "load_peak_bytes": load_peak_bytes,
        }
        self._facts = {
            "runtime_version": identity.version,
            "runtime_package": identity.package,
            "providers": identity.providers,
            "affinity": tuple(sorted(os.sched_getaffinity(0))),
            "spawn_ns": STARTED_AT_NS - job.spawned_at_ns,
            "import_ns": imported_ns - started_ns,
            "load_ns": load_ns,
        }
        return model

    def _finish(self) -> WorkerResult:
        memory = self._read_memory()  # before the statistics need memory
        from trimtab_agent.measure.summary import (  # noqa: PLC0415 - needs numpy
            save_samples,
            summarize,
        )

        facts = self._facts | _warm_up_facts(self._warmed_up)
        kept = []
        for kind, samples in (("burst", self._burst), ("paced", self._paced)):
            if samples.durations_ns:
                facts[kind] = summarize(samples, self._job.bootstrap_seed)
                if self._job.samples_prefix is not None:
                    path = Path(f"{self._job.samples_prefix}-{kind}.npy")
                    kept.append(save_samples(samples, path))
        return WorkerResult(**facts, memory=memory, are_samples_kept=bool(kept) and all(kept))

    def _read_memory(self) -> ProcessMemory:
        highest_bytes = read_status_bytes("VmHWM", self._proc)
        footprint = read_footprint(self._proc)
        peaks = (self._memory["load_peak_bytes"], highest_bytes)
        known = [peak for peak in peaks if peak is not None]
        return ProcessMemory(
            **self._memory,
            inference_peak_bytes=highest_bytes if self._is_peak_reset else None,
            peak_bytes=max(known, default=None) if len(known) == len(peaks) else None,
            rss_bytes=footprint.rss_bytes if footprint else None,
            pss_bytes=footprint.pss_bytes if footprint else None,
            uss_bytes=footprint.uss_bytes if footprint else None,
        )


def confine(job: WorkerJob) -> None:
    """Set affinity, threads and memory limit; threads inherit the affinity, so the runtime comes later.

    Raises:
        ModelError: `config.invalid`, the CPUs are not there.
    """
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


def _warm_up_facts(found: WarmedUp | None) -> dict[str, Any]:
    if found is None:
        return {}
    return {
        "warm_up_runs": found.runs,
        "warm_up_ns": found.duration_ns,
        "is_warm_up_converged": found.is_converged,
    }


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


def serve(job: WorkerJob, channel: socket.socket) -> None:
    """Start, say so, and obey until told to finish or the other end is closed; an error is an answer.

    After its result it waits: of a pair, the other one's memory is read while this one still shares
    its pages, as this one's was.
    """
    with channel, channel.makefile("rwb") as stream:

        def say(answer: Answer) -> None:
            stream.write(answer.model_dump_json().encode() + b"\n")
            stream.flush()

        try:
            worker = Worker(job)
            say(Answer())
            for line in stream:
                answer = worker.obey(Command.model_validate_json(line))
                say(answer)
                if answer.result is not None:
                    stream.read()  # until the other end hangs up
                    return
        except TrimtabError as error:
            say(Answer(error_code=error.code, detail=error.message))
        except MemoryError:
            detail = f"needs more than the {job.max_memory_bytes} bytes that a child may have"
            say(Answer(error_code=ErrorCode.MODEL_MEMORY, detail=detail))


def main(job_path: Path, descriptor: int, parent_pid: int) -> int:
    """Read the job and serve it over the socket that was inherited."""
    die_with_parent(parent_pid)
    job = WorkerJob.model_validate_json(job_path.read_bytes())
    serve(job, socket.socket(fileno=descriptor))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
