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
from trimtab_agent.energy.measure import LoadRun
from trimtab_agent.measure import child, protocol
from trimtab_agent.measure.child import run_job
from trimtab_agent.measure.jobs import (
    Job,
    JobKind,
    JobResult,
    PercentileRow,
    ProcessMemory,
    Settings,
    Subject,
    TimedRuns,
    WorkerJob,
    WorkerResult,
)
from trimtab_agent.measure.lock import machine_lock
from trimtab_agent.measure.protocol import Bench, compare, measure
from trimtab_agent.measure.samples import prune_samples
from trimtab_protocol.errors import ErrorCode, ModelError, StorageError
from trimtab_protocol.manifest import RuntimeName
from trimtab_protocol.measurement import Energy, MeasureSpec, OperatorProfile, Stability
from trimtab_protocol.reading import known

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


def timed(ns: float, **changes: Any) -> TimedRuns:
    row = PercentileRow(value_ns=ns, replicates_ns=(ns,) * 100)
    facts: dict[str, Any] = {
        "runs": 1000,
        "percentiles": dict.fromkeys((50, 90, 95, 99), row),
        "first_half_median_ns": ns,
        "second_half_median_ns": ns,
        "cpu_ns_per_run": ns,
        "wall_ns": int(ns * 1000),
        "max_ns": int(ns * 2),
        "mad_ns": ns / 100,
        "outliers": 7,
    }
    return TimedRuns(**(facts | changes))


class Workers:
    """Processes that are not started: each finds the latency that its model is said to have."""

    def __init__(self) -> None:
        self.jobs: list[WorkerJob] = []
        self.told: list[str] = []
        self.alive = 0
        self.most_alive = 0
        self.latency_ms = {"model-1": 10.0, "model-2": 8.0}
        self.changes: dict[str, Any] = {}
        self.memory: dict[str, Any] = {}
        self.failure: tuple[int, ErrorCode] | None = None

    def session(self, job: WorkerJob, max_s: float) -> FakeSession:
        return FakeSession(self, job, max_s)

    def starts(self) -> str:
        return "".join(letter(job) for job in self.jobs)


def letter(job: WorkerJob) -> str:
    return {"model-1": "B", "model-2": "A"}[job.model_path]


class FakeSession:
    """What WorkerSession is to the protocol."""

    def __init__(self, workers: Workers, job: WorkerJob, max_s: float) -> None:
        self.workers, self.job, self.max_s = workers, job, max_s
        self.is_paced = self.is_burst = False

    def __enter__(self) -> FakeSession:
        workers = self.workers
        workers.jobs.append(self.job)
        workers.alive += 1
        workers.most_alive = max(workers.most_alive, workers.alive)
        if workers.failure is not None and len(workers.jobs) > workers.failure[0]:
            workers.alive -= 1
            raise ModelError("as the test says", code=workers.failure[1])
        return self

    def __exit__(self, *_: object) -> None:
        self.workers.alive -= 1

    def tell(self, what: str) -> None:
        self.workers.told.append(f"{letter(self.job)} {what}")

    def burst(self, min_runs: int, min_s: float) -> int:
        self.is_burst = True
        self.tell(f"burst {min_runs} {min_s:g}")
        return min_runs

    def paced(self, period_ms: float, runs: int) -> int:
        self.is_paced = True
        self.tell(f"paced {period_ms:g} {runs}")
        return runs

    def run_for(self, seconds: float) -> LoadRun:
        self.tell(f"load {seconds:g}")
        started_s = time.monotonic()
        time.sleep(seconds)
        return LoadRun(started_s, time.monotonic(), 201)

    def finish(self) -> WorkerResult:
        ns = self.workers.latency_ms[self.job.model_path] * MS
        facts: dict[str, Any] = {
            "runtime_version": "1.23.0",
            "runtime_package": "onnxruntime",
            "providers": ("CPUExecutionProvider",),
            "affinity": (0, 1),
            "warm_up_runs": 20,
            "warm_up_ns": 500 * MS,
            "is_warm_up_converged": True,
            "spawn_ns": 40 * MS,
            "import_ns": 300 * MS,
            "load_ns": 20 * MS,
            "first_inference_ns": 15 * MS,
            "burst": timed(ns) if self.is_burst else None,
            "paced": timed(ns * 2, late=1) if self.is_paced else None,
            "are_samples_kept": self.job.samples_prefix is not None,
            "memory": ProcessMemory(
                **(
                    {
                        "baseline_bytes": 40_000_000,
                        "load_peak_bytes": 45_000_000,
                        "inference_peak_bytes": 50_000_000,
                        "peak_bytes": 50_000_000,
                        "pss_bytes": 30_000_000,
                    }
                    | self.workers.memory
                )
            ),
        }
        return WorkerResult(**(facts | self.workers.changes))


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    made = Workers()
    monkeypatch.setattr(protocol, "WorkerSession", made.session)
    return made


def a_bare_root(folder: Path) -> Path:
    """A machine with /proc and no sensor at all."""
    (folder / "proc").symlink_to("/proc")
    return folder


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(Settings(device_class="test", threads=1, root=str(a_bare_root(tmp_path))))


def test_candidate_and_incumbent_run_in_turns_so_that_a_drift_hits_both(
    workers: Workers, bench: Bench
) -> None:
    """[P-7.6]"""
    first, second, comparison = compare(bench, CANDIDATE, INCUMBENT, SPEC)
    assert workers.starts() == "ABBAABBA"
    assert workers.most_alive == 2
    assert workers.alive == 0
    assert (
        "".join(row[0] for row in workers.told) == "ABBAABBA" + "BAABBAAB" + "ABBAABBA" + "BAABBAAB"
    )
    assert set(workers.told) == {"A burst 50 1.25", "B burst 50 1.25"}  # a quarter of 200 and 5 s
    assert comparison.p90_ratio.value == pytest.approx(0.8)
    assert comparison.p50_ratio.value == pytest.approx(0.8)
    assert str(comparison.incumbent) == "digits@1"
    assert (first.artifact.version, second.artifact.version) == (2, 1)
    assert (first.size_bytes, second.size_bytes) == (2000, 1000)
    assert first.measurement_id != second.measurement_id


def test_alone_each_process_ends_before_the_next_begins(workers: Workers, bench: Bench) -> None:
    found = measure(bench, CANDIDATE, SPEC)
    assert workers.starts() == "AAAA"
    assert workers.most_alive == 1
    assert workers.told == ["A burst 200 5"] * 4
    assert found.paced is None


def test_paced_runs_come_after_the_bursts_and_are_told_apart(
    workers: Workers, bench: Bench
) -> None:
    spec = SPEC.model_copy(update={"paced_period_ms": 20.0, "paced_runs": 64, "processes": 1})
    found = measure(bench, CANDIDATE, spec)
    assert workers.told == ["A burst 200 5", "A paced 20 64"]
    assert found.paced is not None
    assert found.paced.period_ms == 20.0
    assert found.paced.latency.p50_ms.value == pytest.approx(16.0)
    assert found.paced.late == 1
    assert found.latency.p50_ms.value == pytest.approx(8.0)
    workers.told.clear()
    compare(bench, CANDIDATE, INCUMBENT, spec)
    assert workers.told[-2:] == ["A paced 20 64", "B paced 20 64"]


def test_raw_samples_of_both_are_kept_in_folders_of_their_ids(
    workers: Workers, bench: Bench, tmp_path: Path
) -> None:
    settings = bench.settings.model_copy(update={"samples_dir": str(tmp_path / "samples")})
    spec = SPEC.model_copy(update={"processes": 2})
    first, second, _ = compare(Bench(settings), CANDIDATE, INCUMBENT, spec)
    prefixes = [job.samples_prefix for job in workers.jobs]
    folder = tmp_path / "samples"
    assert prefixes == [
        f"{folder}/{first.measurement_id}/process-0",
        f"{folder}/{second.measurement_id}/process-0",
        f"{folder}/{second.measurement_id}/process-1",
        f"{folder}/{first.measurement_id}/process-1",
    ]
    assert first.are_samples_kept
    assert not measure(bench, CANDIDATE, spec).are_samples_kept


def test_the_oldest_samples_give_way(workers: Workers, bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    for number, age_s in enumerate((300, 200, 100)):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "process-0-burst.npy").write_bytes(b"x" * 1000)
        at_s = time.time() - age_s
        os.utime(folder / str(number), (at_s, at_s))
    settings = bench.settings.model_copy(
        update={"samples_dir": str(folder), "max_samples_bytes": 2500}
    )
    measure(Bench(settings), CANDIDATE, SPEC)
    assert {path.name for path in folder.iterdir()} == {"1", "2"}
    assert prune_samples(folder, 100) == 1
    assert {path.name for path in folder.iterdir()} == {"2"}  # the newest always stays
    assert prune_samples(folder, 0) == 0
    assert prune_samples(folder / "none", 1) == 0


def test_only_the_candidate_of_a_comparison_has_a_profile_so_that_both_fit_a_message(
    monkeypatch: pytest.MonkeyPatch, workers: Workers, bench: Bench
) -> None:
    asked: list[tuple[Any, ...]] = []

    def take_profile(*arguments: Any) -> OperatorProfile:
        asked.append(arguments)
        return OperatorProfile(absent="as the test says")

    monkeypatch.setattr(protocol, "take_profile", take_profile)
    spec = SPEC.model_copy(update={"is_profiled": True, "threads": 3})
    first, second, _ = compare(bench, CANDIDATE, INCUMBENT, spec)
    assert first.operators is not None
    assert second.operators is None
    assert asked == [(CANDIDATE, bench.settings, 3, pytest.approx(8.0), spec.max_process_s)]


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
    assert found.latency.mad_ms is not None
    assert found.latency.mad_ms.value == pytest.approx(0.08)
    assert found.latency.outliers == 28
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
    assert {(job.threads, job.warm_up_s) for job in workers.jobs} == {(3, 0.5)}
    assert set(workers.told) == {"A burst 77 5"}
    assert found.condition.threads == 3


def test_one_process_that_did_not_converge_is_said(workers: Workers, bench: Bench) -> None:
    workers.changes = {"is_warm_up_converged": False}
    assert not measure(bench, CANDIDATE, SPEC).warm_up.is_converged


def test_memory_that_could_not_be_read_is_absent_with_the_reason(
    workers: Workers, bench: Bench
) -> None:
    workers.memory = {"baseline_bytes": None, "peak_bytes": None, "inference_peak_bytes": None}
    memory = measure(bench, CANDIDATE, SPEC).memory
    assert memory.peak_bytes.absent == "VmHWM cannot be read from /proc/self/status"
    assert memory.over_baseline_bytes.value is None
    assert memory.load_peak_bytes.value == 45_000_000
    assert memory.inference_peak_bytes is not None
    assert "clear_refs" in (memory.inference_peak_bytes.absent or "")
    assert memory.uss_bytes is not None
    assert memory.uss_bytes.absent == "/proc/self/smaps_rollup cannot be read"
    assert memory.pss_bytes is not None
    assert memory.pss_bytes.value == 30_000_000


def test_the_first_failure_ends_a_measurement(workers: Workers, bench: Bench) -> None:
    workers.failure = (1, ErrorCode.MODEL_TIMEOUT)
    with pytest.raises(ModelError) as caught:
        measure(bench, CANDIDATE, SPEC)
    assert caught.value.code is ErrorCode.MODEL_TIMEOUT
    assert len(workers.jobs) == 2


def test_progress_is_told_by_planned_time(workers: Workers, bench: Bench) -> None:
    told: list[tuple[float, str]] = []
    counting = Bench(bench.settings, lambda share, what: told.append((share, what)))
    measure(counting, CANDIDATE, SPEC)
    assert told == [(0.25 * n, f"process {n} of 4") for n in (1, 2, 3, 4)]
    told.clear()
    compare(counting, CANDIDATE, INCUMBENT, SPEC)
    assert [share for share, _ in told] == [pytest.approx(n / 16) for n in range(1, 17)]
    assert told[-1][1] == "pair 4 of 4"


class FakeSensor:
    """A sensor that is there; who reads it is replaced too."""

    def facts(self) -> SensorFacts:
        return SensorFacts("fake:0", "board", 0.001)

    def read_mj(self) -> float:
        return 0.0


def energy_with(
    monkeypatch: pytest.MonkeyPatch, workers: Workers, bench: Bench, **spec: Any
) -> tuple[Energy, list[Any]]:
    """The record, and what the energy part was asked."""
    asked: list[Any] = []

    def measure_energy(sensor: Any, load: Any, windows: int, window_s: float) -> Energy:
        asked.append((sensor, windows, window_s))
        load.run_for(0.01)
        return Energy(per_inference_mj=known(1.5), source="fake:0", scope="board")

    sensor = FakeSensor()
    monkeypatch.setattr(protocol, "measure_energy", measure_energy)
    monkeypatch.setattr(protocol, "find_sensor", lambda _root, _meter: sensor)
    energy = measure(bench, CANDIDATE, MeasureSpec(processes=1, **spec)).energy
    return energy, asked


def test_energy_comes_from_a_warm_worker_of_its_own(
    monkeypatch: pytest.MonkeyPatch, workers: Workers, bench: Bench, tmp_path: Path
) -> None:
    settings = bench.settings.model_copy(update={"samples_dir": str(tmp_path / "samples")})
    energy, asked = energy_with(monkeypatch, workers, Bench(settings), energy_windows=3)
    assert energy.per_inference_mj.value == 1.5
    assert [row[1:] for row in asked] == [(3, 10.0)]
    assert workers.starts() == "AA"
    assert workers.told == ["A burst 200 5", "A load 0.01"]
    assert workers.jobs[1].is_warmed_up
    assert workers.jobs[1].samples_prefix is None  # nothing of it is latency


def test_energy_that_is_not_asked_for_takes_no_time(
    monkeypatch: pytest.MonkeyPatch, workers: Workers, bench: Bench
) -> None:
    energy, asked = energy_with(monkeypatch, workers, bench, energy_windows=0)
    assert energy.per_inference_mj.absent == "no energy windows were asked for"
    assert asked == []
    assert workers.starts() == "A"


@pytest.mark.parametrize(
    ("max_job_s", "incumbent", "is_taken"),
    [(None, INCUMBENT, True), (1500.0, INCUMBENT, False), (1200.0, None, True)],
)
def test_windows_that_do_not_fit_into_the_job_cost_the_energy_and_not_the_job(
    monkeypatch: pytest.MonkeyPatch,
    workers: Workers,
    max_job_s: float | None,
    incumbent: Subject | None,
    is_taken: bool,
) -> None:
    class Averaging(FakeSensor):
        """As an INA3221 with 512 samples: a window takes 87 s, eleven of them a quarter of an hour."""

        def facts(self) -> SensorFacts:
            return SensorFacts("slow:0", "module", filter_s=3.4)

    measured = Energy(per_inference_mj=known(1.5))
    monkeypatch.setattr(protocol, "measure_energy", lambda *_arguments: measured)
    monkeypatch.setattr(protocol, "find_sensor", lambda _root, _meter: Averaging())
    changes = {"max_job_s": max_job_s, "spec": MeasureSpec(processes=1)}
    result = run_job(a_job(JobKind.PROBE, incumbent=incumbent).model_copy(update=changes))
    assert result.error_code is None
    found = [row.energy for row in (result.measurement, result.incumbent) if row is not None]
    assert len(found) == (1 if incumbent is None else 2)
    for row in found:
        assert (row.per_inference_mj.value == 1.5) is is_taken
        if not is_taken:
            assert "raise max_job_s under [measure]" in str(row.per_inference_mj.absent)
            assert (row.source, row.scope) == ("slow:0", "module")


def test_a_worker_that_dies_while_energy_is_measured_leaves_the_rest_measured(
    monkeypatch: pytest.MonkeyPatch, workers: Workers, bench: Bench
) -> None:
    workers.failure = (1, ErrorCode.MODEL_CRASH)
    monkeypatch.setattr(protocol, "find_sensor", lambda _root, _meter: FakeSensor())
    found = measure(bench, CANDIDATE, MeasureSpec(processes=1))
    assert found.energy.per_inference_mj.absent == "energy was not measured: as the test says"
    assert found.energy.source == "fake:0"
    assert found.latency.p50_ms.value == pytest.approx(8.0)


def test_a_pi_whose_firmware_throttles_during_the_runs_is_not_called_stable(
    monkeypatch: pytest.MonkeyPatch, workers: Workers, bench: Bench
) -> None:
    asked: list[str] = []

    def ask(command: str) -> str:
        asked.append(command)
        return "throttled=0x4"

    monkeypatch.setattr(protocol, "firmware_asker", lambda _root: ask)
    found = measure(bench, CANDIDATE, SPEC)
    assert "get_throttled" in asked
    assert found.stability is Stability.THROTTLED
    assert any("firmware" in reason for reason in found.stability_reasons)
    assert any("throttled" in complaint for complaint in found.condition.preflight)


def test_without_a_sensor_energy_is_absent_with_the_reason(workers: Workers, bench: Bench) -> None:
    """[P-7.1]"""
    energy = measure(bench, CANDIDATE, SPEC).energy
    assert energy.per_inference_mj.value is None
    assert "no energy sensor" in (energy.per_inference_mj.absent or "")


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
        "settings": Settings(device_class="test", threads=1, root="/nonexistent"),
    }
    return Job(**(facts | changes))


def test_a_check_runs_once_and_times_nothing(workers: Workers) -> None:
    assert run_job(a_job(JobKind.CHECK)) == JobResult(job_id="j1")
    assert [job.is_warmed_up for job in workers.jobs] == [False]
    assert workers.told == []


def test_a_probe_checks_first_and_then_compares(workers: Workers) -> None:
    result = run_job(a_job(JobKind.PROBE, incumbent=INCUMBENT))
    assert workers.starts() == "A" + "ABBAABBA"
    assert workers.jobs[0].is_warmed_up is False
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
