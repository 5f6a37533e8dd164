"""The parent's side of a worker, with real processes: what each kind of end looks like."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from support.tiny_models import make_onnx
from trimtab_agent.measure import session as session_module
from trimtab_agent.measure.jobs import Answer, WorkerJob
from trimtab_agent.measure.session import WorkerSession, describe_death
from trimtab_protocol.errors import ErrorCode, ModelError, StorageError
from trimtab_protocol.manifest import RuntimeName


def a_job(folder: Path, content: bytes | None = None, **changes: Any) -> WorkerJob:
    path = folder / "model.onnx"
    path.write_bytes(make_onnx() if content is None else content)
    facts: dict[str, Any] = {
        "runtime": RuntimeName.ONNXRUNTIME,
        "model_path": str(path),
        "threads": 1,
        "is_spinning_allowed": False,
        "spawned_at_ns": 0,
    }
    return WorkerJob(**(facts | changes))


def pid_of(session: WorkerSession) -> int:
    return session._process.pid


def test_two_workers_are_alive_at_once_and_take_turns(tmp_path: Path) -> None:
    with (
        WorkerSession(a_job(tmp_path), 60) as one,
        WorkerSession(a_job(tmp_path), 60) as other,
    ):
        counts = {one: 0, other: 0}
        for which in (one, other, other, one):
            counts[which] += which.burst(11, 0.0)
        found = {which: which.finish() for which in (one, other)}
    for which, result in found.items():
        assert result.burst is not None
        assert result.burst.runs == counts[which]
        assert result.spawn_ns > 0


def test_everything_a_worker_can_do(tmp_path: Path) -> None:
    prefix = str(tmp_path / "kept" / "process-0")
    with WorkerSession(a_job(tmp_path, samples_prefix=prefix), 60) as worker:
        assert worker.paced(2.0, 11) == 11
        run = worker.run_for(0.1)
        assert run.inferences > 0
        assert run.ended_s - run.started_s >= 0.1
        assert run.ended_s <= time.monotonic()  # the clocks of both processes are one
        assert worker.finish().are_samples_kept
    assert (tmp_path / "kept" / "process-0-paced.npy").exists()


def test_leaving_a_session_ends_the_process_and_removes_its_files(tmp_path: Path) -> None:
    with WorkerSession(a_job(tmp_path), 60) as worker:
        pid, folder = pid_of(worker), Path(worker._folder.name)
        assert folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not folder.exists()


def test_a_file_of_garbage_fails_on_entering_with_its_code(tmp_path: Path) -> None:
    session = WorkerSession(a_job(tmp_path, b"garbage"), 60)
    with pytest.raises(ModelError, match="cannot load it") as caught, session:
        pass
    assert caught.value.code is ErrorCode.MODEL_LOAD
    assert not Path(session._folder.name).exists()


def test_a_model_that_needs_more_memory_than_it_may_have_fails_with_that(tmp_path: Path) -> None:
    big = make_onnx(padding_bytes=100_000_000)
    job = a_job(tmp_path, big, is_warmed_up=False, max_memory_bytes=200_000_000)
    with pytest.raises(ModelError) as caught, WorkerSession(job, 60):
        pass
    assert caught.value.code is ErrorCode.MODEL_MEMORY


def test_one_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    session = WorkerSession(a_job(tmp_path, warm_up_s=60.0), 1.0)
    with (
        pytest.raises(ModelError, match=r"did not end within 1 s: .*max_process_s") as caught,
        session,
    ):
        pass
    assert caught.value.code is ErrorCode.MODEL_TIMEOUT
    with pytest.raises(ProcessLookupError):
        os.kill(pid_of(session), 0)


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


def test_time_that_was_planned_or_spent_elsewhere_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(session_module, "time", clock)
    session = WorkerSession(a_job(tmp_path), 60.0)
    deadlines: list[float] = []

    def answer_after(seconds: float, **said: Any) -> None:
        def read_line(until_s: float) -> bytes:
            deadlines.append(until_s - clock.now_s)
            clock.now_s += seconds
            return Answer(**said).model_dump_json().encode()

        monkeypatch.setattr(session, "_read_line", read_line)

    session._channel, other = socket.socketpair()
    with session._channel, other:
        answer_after(5.0)
        session.burst(11, 0.3)
        clock.now_s += 1000.0  # the other one of a pair
        answer_after(12.0, runs=7)
        assert session.run_for(10.0).inferences == 7
        answer_after(3.0)
        session.paced(20.0, 100)
        answer_after(1.0)
        session.burst(11, 0.3)
    assert deadlines == [60.0, 65.0, 55.0, 52.0]


def test_a_worker_that_is_killed_says_by_what(tmp_path: Path) -> None:
    with WorkerSession(a_job(tmp_path), 60) as worker:
        os.kill(pid_of(worker), signal.SIGSEGV)
        with pytest.raises(ModelError, match="killed by SIGSEGV") as caught:
            worker.burst(11, 0.0)
    assert caught.value.code is ErrorCode.MODEL_CRASH


def test_an_answer_that_is_none_is_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with WorkerSession(a_job(tmp_path), 60) as worker:
        worker._buffer = b"{nonsense\n"
        with pytest.raises(ModelError, match="answered nonsense") as caught:
            worker.burst(11, 0.0)
    assert caught.value.code is ErrorCode.MODEL_CRASH


def test_a_process_that_cannot_be_started_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any, **_options: Any) -> Any:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(session_module, "start_module", refuse)
    session = WorkerSession(a_job(tmp_path), 60)
    with pytest.raises(StorageError, match=r"start a process in .*temporarily"), session:
        pass
    assert not Path(session._folder.name).exists()


def test_a_worker_that_has_finished_lives_until_its_session_is_left(tmp_path: Path) -> None:
    """Of a pair, both are there while the memory of either is read: they share pages."""
    with WorkerSession(a_job(tmp_path), 60) as worker:
        assert worker.finish().memory.pss_bytes is not None
        with pytest.raises(subprocess.TimeoutExpired):
            worker._process.wait(1.0)


def test_threads_are_confined_to_the_cpus_that_were_named(tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    with WorkerSession(a_job(tmp_path, affinity=(cpu,)), 60) as worker:
        assert worker.finish().affinity == (cpu,)


@pytest.mark.parametrize(
    ("return_code", "stderr", "code", "says"),
    [
        (1, "Traceback", ErrorCode.MODEL_CRASH, "ended with code 1: Traceback"),
        (-11, "", ErrorCode.MODEL_CRASH, "was killed by SIGSEGV"),
        (-40, "", ErrorCode.MODEL_CRASH, "was killed by signal 40"),
        (1, "std::bad_alloc", ErrorCode.MODEL_MEMORY, "bad_alloc"),
        (1, "MemoryError", ErrorCode.MODEL_MEMORY, "MemoryError"),
        (-6, "Cannot allocate memory", ErrorCode.MODEL_MEMORY, "SIGABRT"),
    ],
)
def test_how_a_process_ended_says_whether_memory_was_the_cause(
    return_code: int, stderr: str, code: ErrorCode, says: str
) -> None:
    error = describe_death(return_code, stderr)
    assert error.code is code
    assert says in error.message
