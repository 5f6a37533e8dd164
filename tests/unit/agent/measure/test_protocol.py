"""Several processes, then statistics: the order of the processes, and what is put together."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from support.factories import a_ref
from trimtab_agent.energy.base import SensorFacts
from trimtab_agent.measure import child, protocol
from trimtab_agent.measure.child import run_job
from trimtab_agent.measure.jobs import (
    Job,
    JobKind,
    JobResult,
    PercentileRow,
    Settings,
    Subject,
    WorkerJob,
    WorkerResult,
)
from trimtab_agent.measure.protocol import Bench, compare, machine_lock, measure
from trimtab_protocol.errors import ErrorCode, ModelError, StorageError
from trimtab_protocol.manifest import RuntimeName
from trimtab_protocol.measurement import MeasureSpec

SPEC = MeasureSpec(processes=4)
MS = 1_000_000


def a_subject(version: int) -> Subject:
    return Subject(
        artifact=a_ref(version=version),
        runtime=RuntimeName.ONNXRUNTIME,
        model_path=f"model-{version}",
        size_bytes=1000 * version,
    )


CANDIDATE, INCUMBENT = a_subject(2), a_subject(1)


class Workers:
    """Processes that are not started: each finds the latency that its model is said to have."""

    def __init__(self) -> None:
        self.jobs: list[WorkerJob] = []
        self.latency_ms = {"model-1": 10.0, "model-2": 8.0}
        self.changes: dict[str, Any] = {}
        self.failure: tuple[int, ErrorCode] | None = None

    def run(self, job: WorkerJob, _timeout_s: float) -> WorkerResult:
        self.jobs.append(job)
        if self.failure is not None and len(self.jobs) > self.failure[0]:
            raise ModelError("as the test says", code=self.failure[1])
        ns = self.latency_ms[job.model_path] * MS
        row = PercentileRow(value_ns=ns, replicates_ns=(ns,) * 100)
        facts: dict[str, Any] = {
            "runtime_version": "1.23.0",
            "runtime_package": "onnxruntime",
            "providers": ("CPUExecutionProvider",),
            "affinity": (0, 1),
            "runs": 1000,
            "percentiles": dict.fromkeys((50, 90, 95, 99), row),
            "first_half_median_ns": ns,
            "second_half_median_ns": ns,
            "cpu_ns_per_run": ns,
            "steady_ns": int(ns * 1000),
            "max_ns": int(ns * 2),
            "warm_up_runs": 20,
            "warm_up_ns": 500 * MS,
            "is_warm_up_converged": True,
            "spawn_ns": 40 * MS,
            "import_ns": 300 * MS,
            "load_ns": 20 * MS,
            "first_inference_ns": 15 * MS,
            "baseline_bytes": 40_000_000,
            "load_peak_bytes": 45_000_000,
            "peak_bytes": 50_000_000,
        }
        return WorkerResult(**(facts | self.changes))

    def order(self) -> str:
        return "".join({"model-1": "B", "model-2": "A"}[job.model_path] for job in self.jobs)


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    made = Workers()
    monkeypatch.setattr(protocol, "run_worker_process", made.run)
    return made


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(Settings(device_class="test", threads=1, sys_root=str(tmp_path / "no sys")))


def test_candidate_and_incumbent_run_in_turns_so_that_a_drift_hits_both(
    workers: Workers, bench: Bench
) -> None:
    """[P-7.6]"""
    first, second, comparison = compare(bench, CANDIDATE, INCUMBENT, SPEC)
    assert workers.order() == "ABBAABBA"
    assert comparison.p90_ratio.value == pytest.approx(0.8)
    assert comparison.p50_ratio.value == pytest.approx(0.8)
    assert str(comparison.incumbent) == "digits@1"
    assert (first.artifact.version, second.artifact.version) == (2, 1)
    assert (first.size_bytes, second.size_bytes) == (2000, 1000)


def test_a_measurement_puts_together_what_the_processes_found(
    workers: Workers, bench: Bench
) -> None:
    found = measure(bench, CANDIDATE, SPEC)
    assert found.latency.processes == 4
    assert found.latency.runs == 4000
    assert found.latency.p99_ms.value == pytest.approx(8.0)
    assert found.latency.max_ms.value == pytest.approx(16.0)
    assert found.cold_start.import_ms.value == pytest.approx(300.0)
    assert found.warm_up.runs == 80
    assert found.warm_up.duration_s == pytest.approx(2.0)
    assert found.warm_up.is_converged
    assert found.memory.peak_bytes.value == 50_000_000
    assert found.memory.over_baseline_bytes.value == 10_000_000


def test_a_measurement_carries_its_whole_condition(workers: Workers, bench: Bench) -> None:
    """[P-7.4]"""
    condition = measure(bench, CANDIDATE, SPEC).condition
    assert condition.device_class == "test"
    assert (condition.runtime_package, condition.runtime_version) == ("onnxruntime", "1.23.0")
    assert condition.threads == 1
    assert condition.affinity == (0, 1)
    assert condition.is_spinning_allowed is False
    assert condition.memory_total_bytes is not None
    assert condition.boot_id
    assert condition.python.count(".") == 2


def test_every_process_has_its_own_seed_and_the_specs_bounds(
    workers: Workers, bench: Bench
) -> None:
    spec = SPEC.model_copy(update={"threads": 3, "min_runs": 77, "warm_up_s": 0.5})
    found = measure(bench, CANDIDATE, spec)
    assert [job.bootstrap_seed for job in workers.jobs] == [0, 1, 2, 3]
    assert {(job.threads, job.min_runs, job.warm_up_s) for job in workers.jobs} == {(3, 77, 0.5)}
    assert found.condition.threads == 3


def test_one_process_that_did_not_converge_is_said(workers: Workers, bench: Bench) -> None:
    workers.changes = {"is_warm_up_converged": False}
    assert not measure(bench, CANDIDATE, SPEC).warm_up.is_converged


def test_memory_that_could_not_be_read_is_absent_with_the_reason(
    workers: Workers, bench: Bench
) -> None:
    workers.changes = {"baseline_bytes": None, "peak_bytes": None}
    memory = measure(bench, CANDIDATE, SPEC).memory
    assert memory.peak_bytes.absent == "VmHWM cannot be read from /proc/self/status"
    assert memory.over_baseline_bytes.value is None
    assert memory.load_peak_bytes.value == 45_000_000


def test_the_first_failure_ends_a_measurement(workers: Workers, bench: Bench) -> None:
    workers.failure = (1, ErrorCode.MODEL_TIMEOUT)
    with pytest.raises(ModelError) as caught:
        measure(bench, CANDIDATE, SPEC)
    assert caught.value.code is ErrorCode.MODEL_TIMEOUT
    assert len(workers.jobs) == 2


def test_progress_is_told_after_each_process(workers: Workers, bench: Bench) -> None:
    told: list[tuple[int, int]] = []
    counting = Bench(bench.settings, lambda done, total: told.append((done, total)))
    measure(counting, CANDIDATE, SPEC)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


class FakeSensor:
    """A counter that grows with virtual power: more while a worker runs."""

    def __init__(self, workers: Workers, *, fails_after: int = 10**9) -> None:
        self.workers = workers
        self.reads = 0
        self.fails_after = fails_after
        self.began_s = time.monotonic()

    def facts(self) -> SensorFacts:
        return SensorFacts("fake:0", "board", 0.001)

    def read_mj(self) -> float:
        self.reads += 1
        if self.reads > self.fails_after:
            raise StorageError("the counter vanished")
        idle_mj = (time.monotonic() - self.began_s) * 1000.0
        return idle_mj + len(self.workers.jobs) * 201.0


def with_sensor(
    monkeypatch: pytest.MonkeyPatch, workers: Workers, bench: Bench, **changes: Any
) -> Any:
    monkeypatch.setattr(protocol, "IDLE_WINDOW_S", 0.02)
    sensor = FakeSensor(workers, **changes)
    monkeypatch.setattr(protocol, "find_sensor", lambda _root: sensor)
    return measure(bench, CANDIDATE, MeasureSpec(processes=1)).energy


def test_energy_comes_from_windows_of_its_own_and_counts_every_inference(
    monkeypatch: pytest.MonkeyPatch, workers: Workers, bench: Bench
) -> None:
    workers.changes = {"runs": 100, "warm_up_runs": 100}
    energy = with_sensor(monkeypatch, workers, bench)
    assert energy.per_inference_mj.value == pytest.approx(1.0, rel=0.05)  # 201 mJ, 201 runs
    assert (energy.source, energy.scope) == ("fake:0", "board")
    assert len(workers.jobs) == 1 + protocol.LOAD_WINDOWS


def test_a_sensor_that_vanishes_leaves_the_figure_absent_and_the_rest_measured(
    monkeypatch: pytest.MonkeyPatch, workers: Workers, bench: Bench
) -> None:
    energy = with_sensor(monkeypatch, workers, bench, fails_after=3)
    assert energy.per_inference_mj.absent == "the counter vanished"
    assert energy.source == "fake:0"


def test_without_a_sensor_energy_is_absent_with_the_reason(workers: Workers, bench: Bench) -> None:
    """[P-7.1]"""
    energy = measure(bench, CANDIDATE, SPEC).energy
    assert energy.per_inference_mj.value is None
    assert "powercap is absent" in (energy.per_inference_mj.absent or "")


def test_only_one_at_a_time_measures(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    order: list[str] = []

    def second() -> None:
        with machine_lock(path):
            order.append("second")

    with machine_lock(path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.2)
        order.append("first is done")
    thread.join(5)
    assert order == ["first is done", "second"]


def test_the_lock_is_given_back_when_a_measurement_fails(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with pytest.raises(ModelError), machine_lock(str(path)):
        raise ModelError("it broke")
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_a_lock_that_is_there_is_opened_as_it_is_so_that_another_users_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sticky folder the kernel refuses O_CREAT on another user's file (fs.protected_regular)."""
    path = tmp_path / "lock"
    path.touch()
    original = os.open

    def protected(name: Any, flags: int, mode: int = 0o777) -> int:
        if name == path and flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied")
        return original(name, flags, mode)

    monkeypatch.setattr(os, "open", protected)
    with machine_lock(str(path)):
        pass


def test_a_lock_is_readable_for_every_user_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with machine_lock(str(tmp_path / "lock")):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o644


def test_a_lock_that_cannot_be_opened_is_a_storage_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="none/lock"), machine_lock(str(tmp_path / "none/lock")):
        pass


def a_job(kind: JobKind, **changes: Any) -> Job:
    facts: dict[str, Any] = {
        "job_id": "j1",
        "kind": kind,
        "subject": CANDIDATE,
        "spec": SPEC,
        "settings": Settings(device_class="test", threads=1, sys_root="/nonexistent"),
    }
    return Job(**(facts | changes))


def test_a_check_runs_once_and_times_nothing(workers: Workers) -> None:
    assert run_job(a_job(JobKind.CHECK)) == JobResult(job_id="j1")
    assert [job.is_timed for job in workers.jobs] == [False]


def test_a_probe_checks_first_and_then_compares(workers: Workers) -> None:
    result = run_job(a_job(JobKind.PROBE, incumbent=INCUMBENT))
    assert workers.order() == "A" + "ABBAABBA"
    assert workers.jobs[0].is_timed is False
    assert result.comparison is not None
    assert result.measurement is not None
    assert result.incumbent is not None


def test_a_first_model_is_measured_without_a_comparison(workers: Workers) -> None:
    result = run_job(a_job(JobKind.PROBE))
    assert result.measurement is not None
    assert result.comparison is None


def test_a_model_that_fails_is_a_result_and_nothing_is_measured(workers: Workers) -> None:
    workers.failure = (0, ErrorCode.MODEL_GOLDEN)
    result = run_job(a_job(JobKind.PROBE, incumbent=INCUMBENT))
    assert (result.error_code, result.detail) == (ErrorCode.MODEL_GOLDEN, "as the test says")
    assert len(workers.jobs) == 1


def test_the_child_writes_its_result_into_the_file_it_was_given(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "die_with_parent", lambda _pid: None)  # the tests go on living
    (tmp_path / "job").write_text(a_job(JobKind.CHECK).model_dump_json())
    assert child.main(tmp_path / "job", tmp_path / "result", os.getppid()) == 0
    text = (tmp_path / "result").read_bytes()
    assert JobResult.model_validate_json(text) == JobResult(job_id="j1")


@pytest.mark.parametrize(
    ("return_code", "stderr", "code", "says"),
    [
        (1, "Traceback", ErrorCode.MODEL_CRASH, "ended with code 1: Traceback"),
        (-11, "", ErrorCode.MODEL_CRASH, "was killed by SIGSEGV"),
        (1, "std::bad_alloc", ErrorCode.MODEL_MEMORY, "bad_alloc"),
        (1, "MemoryError", ErrorCode.MODEL_MEMORY, "MemoryError"),
        (-6, "Cannot allocate memory", ErrorCode.MODEL_MEMORY, "SIGABRT"),
    ],
)
def test_how_a_process_ended_says_whether_memory_was_the_cause(
    return_code: int, stderr: str, code: ErrorCode, says: str
) -> None:
    error = protocol._crash(return_code, stderr)
    assert error.code is code
    assert says in error.message
