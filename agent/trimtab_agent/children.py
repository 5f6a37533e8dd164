"""The resident's side of a child: start one job, get one result, whatever happens to the child."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from math import inf
from pathlib import Path
from typing import Protocol

from trimtab_agent.disk import storage_errors
from trimtab_agent.events import ChildFinished
from trimtab_agent.measure.jobs import Job, JobResult
from trimtab_agent.processes import kill_group, read_tail, start_module
from trimtab_protocol.base import build_now, parse_wire
from trimtab_protocol.errors import ErrorCode, ProtocolError


class ChildRunner(Protocol):
    """Runs one job at a time, elsewhere."""

    def start(self, job: Job) -> None:
        """Begin a job; its ChildFinished comes later."""

    def kill(self) -> None:
        """End the running job, if there is one, without a result."""


class ProcessRunner:
    """Runs each job in a fresh process group.

    Args:
        folder: For the files of jobs; what a killed resident left there is removed.
        put_event: Called from another thread with ChildFinished.
        max_job_s: A job that takes longer, or longer than its own limit, is killed and fails with
            `model.timeout`.
    """

    def __init__(
        self, folder: Path, put_event: Callable[[ChildFinished], None], max_job_s: float
    ) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        self._put_event = put_event
        self._max_job_s = max_job_s
        self._process: subprocess.Popen[bytes] | None = None
        self._killed_job_ids: set[str] = set()
        self._job_id = ""

    def start(self, job: Job) -> None:
        """Start the child; a thread waits for its end.

        Raises:
            StorageError: There is no room for its files or no process to be had.
        """
        self._process = None  # what ran before has ended; its pid may be somebody else's now
        max_job_s = min(job.max_job_s or inf, self._max_job_s)
        with (
            storage_errors("start a child in", self._folder),
            ExitStack() as undo,
        ):
            self._folder.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self._folder))
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            limited = job.model_copy(update={"max_job_s": max_job_s})
            (folder / "job").write_text(limited.model_dump_json())
            arguments = [str(folder / "job"), str(folder / "result"), str(os.getpid())]
            self._job_id = job.job_id
            self._process = start_module(
                "trimtab_agent.measure.child", arguments, stderr_path=folder / "stderr"
            )
            undo.pop_all()
        build_now(JobResult)  # the thread reads one, see trimtab_protocol/base.py
        waiting = (job.job_id, self._process, folder, max_job_s)
        threading.Thread(target=self._wait, args=waiting, name="child", daemon=True).start()

    def kill(self) -> None:
        """Kill the child with everything it started."""
        if self._process is not None:
            self._killed_job_ids.add(self._job_id)
            kill_group(self._process)
            self._process = None

    def _wait(
        self, job_id: str, process: subprocess.Popen[bytes], folder: Path, max_job_s: float
    ) -> None:
        try:
            process.wait(max_job_s)
            result = _read_result(job_id, process.returncode, folder)
        except subprocess.TimeoutExpired:
            kill_group(process)
            detail = f"the job did not end within {max_job_s:g} s"
            result = JobResult(job_id=job_id, error_code=ErrorCode.MODEL_TIMEOUT, detail=detail)
        shutil.rmtree(folder, ignore_errors=True)
        if job_id in self._killed_job_ids:
            self._killed_job_ids.discard(job_id)
            return
        self._put_event(ChildFinished(result))


def _read_result(job_id: str, return_code: int, folder: Path) -> JobResult:
    try:
        return parse_wire(JobResult, (folder / "result").read_bytes(), what="result of a child")
    except (OSError, ProtocolError):
        detail = f"the child ended with code {return_code}: {read_tail(folder / 'stderr')}"
        return JobResult(job_id=job_id, error_code=ErrorCode.MODEL_CRASH, detail=detail)
