"""The parent's side of a worker: it starts one, tells it what to do, and never waits too long."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError

from trimtab_agent.disk import storage_errors
from trimtab_agent.energy.measure import LoadRun
from trimtab_agent.measure.jobs import Action, Answer, Command, WorkerJob, WorkerResult
from trimtab_agent.processes import describe_end, kill_group, read_tail, start_module
from trimtab_agent.runtimes.base import code_of_failure
from trimtab_protocol.errors import ErrorCode, ModelError, TrimtabError, error_from_code

WORKER = "trimtab_agent.measure.worker"
RECEIVE_BYTES = 1 << 16


class WorkerSession:
    """One worker in a fresh process, alive until it has finished or the session is left.

    Use it as a context manager: entering it starts the process and waits until the model is loaded,
    checked and warm.

    Args:
        job: What the process is started for.
        max_s: Seconds that the process may work altogether. Time that a command takes on purpose
            (`planned_s`), and time in which nothing was asked of it, do not count.

    Raises:
        ModelError: On entering and from each command: the model does not load, run or compute what
            its golden vectors say; `model.crash`, `model.memory`: the process died;
            `model.timeout`: it took too long and was killed.
        StorageError: On entering: there is no room for its files, or no process to be had.
    """

    def __init__(self, job: WorkerJob, max_s: float) -> None:
        self._job = job
        self._max_s = max_s
        self._left_s = max_s
        self._buffer = b""

    def __enter__(self) -> WorkerSession:
        with storage_errors("start a process in", Path(tempfile.gettempdir())):
            self._start()
        try:
            self._receive(planned_s=0.0)
        except BaseException:
            self.close()
            raise
        return self

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="trimtab-worker-")
        folder = Path(self._folder.name)
        self._stderr_path = folder / "stderr"
        self._channel, theirs = socket.socketpair()
        try:
            with theirs:
                stamped = self._job.model_copy(update={"spawned_at_ns": time.monotonic_ns()})
                (folder / "job").write_text(stamped.model_dump_json())
                arguments = [str(folder / "job"), str(theirs.fileno()), str(os.getpid())]
                self._process = start_module(
                    WORKER, arguments, stderr_path=self._stderr_path, pass_fds=(theirs.fileno(),)
                )
        except BaseException:
            self._channel.close()
            self._folder.cleanup()
            raise

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what still runs and remove its files."""
        self._channel.close()
        kill_group(self._process)
        self._folder.cleanup()

    def burst(self, min_runs: int, min_s: float) -> int:
        """Timed runs back to back, at least so many and so long; how many they were."""
        command = Command(action=Action.BURST, runs=min_runs, seconds=min_s)
        return self._order(command, planned_s=0.0).runs

    def paced(self, period_ms: float, runs: int) -> int:
        """Timed runs, one per period; how many they were."""
        command = Command(action=Action.PACED, runs=runs, period_ms=period_ms)
        return self._order(command, planned_s=period_ms * runs / 1e3).runs

    def run_for(self, seconds: float) -> LoadRun:
        """Infer back to back for about so long."""
        answer = self._order(Command(action=Action.LOAD, seconds=seconds), planned_s=seconds)
        return LoadRun(answer.started_s, answer.ended_s, answer.runs)

    def finish(self) -> WorkerResult:
        """What the process found; it does nothing more, and ends with the session."""
        result = self._order(Command(action=Action.FINISH), planned_s=0.0).result
        if result is None:
            raise ModelError("the process ended without a result", code=ErrorCode.MODEL_CRASH)
        return result

    def _order(self, command: Command, planned_s: float) -> Answer:
        with suppress(OSError):  # it has died; _receive says how
            self._channel.sendall(command.model_dump_json().encode() + b"\n")
        return self._receive(planned_s)

    def _receive(self, planned_s: float) -> Answer:
        began_s = time.monotonic()
        line = self._read_line(began_s + self._left_s + planned_s)
        self._left_s -= max(0.0, time.monotonic() - began_s - planned_s)
        try:
            answer = Answer.model_validate_json(line)
        except ValidationError as error:
            raise ModelError(
                f"the process that ran the model answered nonsense: {error}",
                code=ErrorCode.MODEL_CRASH,
            ) from error
        if answer.error_code is not None:
            raise error_from_code(answer.error_code, answer.detail)
        return answer

    def _read_line(self, until_s: float) -> bytes:
        while b"\n" not in self._buffer:
            try:
                self._channel.settimeout(max(0.001, until_s - time.monotonic()))
                received = self._channel.recv(RECEIVE_BYTES)
            except TimeoutError as error:  # close() kills it
                raise ModelError(
                    f"the process that ran the model did not end within {self._max_s:.0f} s: "
                    "let it take longer (max_process_s), or ask for fewer runs (min_runs)",
                    code=ErrorCode.MODEL_TIMEOUT,
                ) from error
            except ConnectionError:
                received = b""
            if not received:
                raise self._death()
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _death(self) -> TrimtabError:
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            kill_group(self._process)
        return describe_death(self._process.returncode, read_tail(self._stderr_path))


def describe_death(return_code: int, stderr: str) -> TrimtabError:
    """The error of a process that ended without an answer."""
    code = code_of_failure(stderr, ErrorCode.MODEL_CRASH)
    how = describe_end(return_code)
    return ModelError(f"the process that ran the model {how}: {stderr}", code=code)
