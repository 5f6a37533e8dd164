"""Real children: whatever happens to one, one result comes, and no process is left."""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.factories import a_ref
from support.tiny_models import make_onnx
from trimtab_agent import children
from trimtab_agent.children import ProcessRunner
from trimtab_agent.events import ChildFinished
from trimtab_agent.measure.jobs import Job, JobKind, JobResult, Settings, Subject
from trimtab_protocol.errors import ErrorCode, StorageError
from trimtab_protocol.manifest import RuntimeName
from trimtab_protocol.measurement import MeasureSpec

MARK = "TRIMTAB_TEST_MARK"
SLOW = make_onnx(layers=200)
"""20,000 runs of it take much longer than any test waits."""


class Runner:
    """A ProcessRunner whose processes can be told from all others by a mark in their environment."""

    def __init__(self, folder: Path, mark: str) -> None:
        self.folder = folder
        self.mark = mark
        self.finished: queue.SimpleQueue[ChildFinished] = queue.SimpleQueue()

    def start(self, job: Job, max_job_s: float = 60.0) -> ProcessRunner:
        runner = ProcessRunner(self.folder / "jobs", self.finished.put, max_job_s)
        runner.start(job)
        return runner

    def result(self) -> JobResult:
        return self.finished.get(timeout=60).result

    def job(self, content: bytes, *, kind: JobKind = JobKind.CHECK, job_id: str = "j1") -> Job:
        path = self.folder / "model.onnx"
        path.write_bytes(content)
        subject = Subject(
            artifact=a_ref(),
            runtime=RuntimeName.ONNXRUNTIME,
            model_path=str(path),
            size_bytes=len(content),
        )
        long = MeasureSpec(processes=50, min_steady_s=60.0)
        settings = Settings(device_class="test", threads=1)
        return Job(job_id=job_id, kind=kind, subject=subject, spec=long, settings=settings)

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                is_ours = process.environ().get(MARK) == self.mark
                if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def wait_until(self, is_so: Callable[[], Any], timeout_s: float = 15.0) -> None:
        until = time.monotonic() + timeout_s
        while not is_so():
            assert time.monotonic() < until, self.processes()
            time.sleep(0.05)


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    mark = uuid.uuid4().hex
    temporary = tmp_path / "jobs"
    monkeypatch.setenv(MARK, mark)
    made = Runner(tmp_path, mark)
    yield made
    made.wait_until(lambda: not made.processes())
    made.wait_until(lambda: not list(temporary.glob("*")))


def measuring(runner: Runner) -> list[psutil.Process]:
    """The workers that run now, below the child."""
    return [row for row in runner.processes() if "trimtab_agent.measure.worker" in row.cmdline()]


def test_a_good_model_passes_its_check(runner: Runner) -> None:
    runner.start(runner.job(make_onnx()))
    assert runner.result() == JobResult(job_id="j1")


def test_a_file_of_garbage_is_a_model_that_does_not_load(runner: Runner) -> None:
    runner.start(runner.job(b"no model at all"))
    result = runner.result()
    assert result.error_code is ErrorCode.MODEL_LOAD
    assert "ONNX Runtime cannot load it" in result.detail


def test_a_child_that_is_killed_is_a_crash_with_its_code(runner: Runner) -> None:
    runner.start(runner.job(SLOW, kind=JobKind.MEASURE))
    runner.wait_until(lambda: measuring(runner))
    for process in runner.processes():
        if "trimtab_agent.measure.child" in process.cmdline():
            process.kill()
    result = runner.result()
    assert result.error_code is ErrorCode.MODEL_CRASH
    assert "code -9" in result.detail


def test_a_worker_that_is_killed_is_a_crash_with_its_signal(runner: Runner) -> None:
    runner.start(runner.job(SLOW, kind=JobKind.MEASURE))
    runner.wait_until(lambda: measuring(runner))
    for process in measuring(runner):
        process.kill()
    result = runner.result()
    assert result.error_code is ErrorCode.MODEL_CRASH
    assert "SIGKILL" in result.detail


def test_a_child_that_takes_too_long_is_killed_with_its_workers(runner: Runner) -> None:
    runner.start(runner.job(SLOW, kind=JobKind.MEASURE), max_job_s=8.0)
    runner.wait_until(lambda: measuring(runner))
    result = runner.result()
    assert result.error_code is ErrorCode.MODEL_TIMEOUT
    assert "within 8 s" in result.detail
    runner.wait_until(lambda: not runner.processes(), timeout_s=3.0)


def test_a_child_that_is_given_up_ends_without_a_result(runner: Runner) -> None:
    process_runner = runner.start(runner.job(SLOW, kind=JobKind.MEASURE))
    runner.wait_until(lambda: measuring(runner))
    process_runner.kill()
    process_runner.kill()
    runner.wait_until(lambda: not runner.processes())
    process_runner.start(runner.job(make_onnx(), job_id="j2"))
    assert runner.result().job_id == "j2"
    assert runner.finished.empty()


def test_what_a_killed_resident_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "jobs" / "of-before"
    left.mkdir(parents=True)
    (left / "result").write_text("{}")
    ProcessRunner(tmp_path / "jobs", lambda _event: None, 1.0)
    assert not left.exists()


def test_a_child_that_writes_junk_is_a_crash(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "result").write_text("{")
    (tmp_path / "stderr").write_text("Traceback:\n   it broke\n")
    result = children._read_result("j1", 3, tmp_path)
    assert result.error_code is ErrorCode.MODEL_CRASH
    assert result.detail == "the child ended with code 3: Traceback: it broke"


def test_a_child_that_cannot_be_started_is_a_storage_error_and_kills_nobody(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    process_runner = runner.start(runner.job(make_onnx()))
    runner.result()
    killed: list[object] = []
    monkeypatch.setattr(children, "kill_group", killed.append)

    def refuse(*_arguments: object, **_named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(children, "start_module", refuse)
    with pytest.raises(StorageError, match="No space left"):
        process_runner.start(runner.job(make_onnx(), job_id="j2"))
    process_runner.kill()
    assert killed == []


@pytest.mark.parametrize(("own_s", "job_s"), [(60.0, 2.0), (2.0, 60.0)])
def test_the_tighter_of_the_limits_of_job_and_runner_ends_a_child(
    runner: Runner, own_s: float, job_s: float
) -> None:
    job = runner.job(SLOW, kind=JobKind.MEASURE).model_copy(update={"max_job_s": job_s})
    runner.start(job, max_job_s=own_s)
    (told,) = (runner.folder / "jobs").glob("*/job")
    assert Job.model_validate_json(told.read_bytes()).max_job_s == 2.0
    result = runner.result()
    assert result.error_code is ErrorCode.MODEL_TIMEOUT
    assert "within 2 s" in result.detail
