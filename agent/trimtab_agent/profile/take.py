"""Taking a profile: start the process, wait for it, and believe nothing it did not write down."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from pydantic import ValidationError

from trimtab_agent.measure.jobs import Settings, Subject
from trimtab_agent.processes import describe_end, kill_group, read_tail, start_module
from trimtab_agent.profile.jobs import KernelMode, ProfileJob
from trimtab_agent.profile.record import absent_profile
from trimtab_protocol.measurement import OperatorProfile

WORKER = "trimtab_agent.profile.worker"
SHARE_OF_TIMEOUT = 0.25
MAX_BUDGET_S = 10.0


def take_profile(
    subject: Subject,
    settings: Settings,
    threads: int,
    timed_p50_ms: float | None,
    timeout_s: float = 60.0,
    *,
    mode: KernelMode = KernelMode.DELEGATE,
) -> OperatorProfile:
    """Profile a model in a process of its own; never raises for what can go wrong there.

    The caller holds the measuring lock, as for any other run.

    Args:
        subject: The model.
        settings: The device's.
        threads: Intra-operator threads, as in the timed runs.
        timed_p50_ms: Their median, to tell how much profiling slows down; None if there is none.
        timeout_s: The process is killed after so many seconds.
        mode: LiteRT's kernels.

    Returns:
        The profile; absent, with the reason, if the runtime has none, crashed or took too long.
    """
    job = ProfileJob(
        runtime=subject.runtime,
        model_path=subject.model_path,
        threads=threads,
        mode=mode,
        is_spinning_allowed=settings.is_spinning_allowed,
        affinity=settings.affinity,
        max_memory_bytes=settings.max_memory_bytes,
        golden=subject.golden,
        timed_p50_ms=timed_p50_ms,
        budget_s=min(MAX_BUDGET_S, timeout_s * SHARE_OF_TIMEOUT),
    )
    try:
        with tempfile.TemporaryDirectory(prefix="trimtab-profile-") as name:
            return _run(job, Path(name), timeout_s)
    except OSError as error:
        return absent_profile(f"the profiling process could not be started: {error}")


def _run(job: ProfileJob, folder: Path, timeout_s: float) -> OperatorProfile:
    job_path, result_path, stderr_path = (folder / part for part in ("job", "result", "stderr"))
    job_path.write_text(job.model_dump_json())
    process = start_module(
        WORKER, [str(job_path), str(result_path), str(os.getpid())], stderr_path=stderr_path
    )
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return absent_profile(f"the profiling process did not end within {timeout_s:.0f} s")
    finally:
        kill_group(process)
    if process.returncode != 0:
        how = describe_end(process.returncode)
        return absent_profile(f"the profiling process {how}: {read_tail(stderr_path)}")
    try:
        return OperatorProfile.model_validate_json(result_path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return absent_profile("the profiling process ended without a readable result")
