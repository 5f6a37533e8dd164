"""One fresh process that profiles one model: `python -m trimtab_agent.profile.worker JOB RESULT PARENT`.

It uses what runtimes do not promise, so it may crash; nothing else is lost then.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from trimtab_agent.processes import die_with_parent
from trimtab_agent.profile.jobs import ProfileJob
from trimtab_agent.profile.record import absent_profile, normalise
from trimtab_protocol.errors import TrimtabError
from trimtab_protocol.manifest import RuntimeName
from trimtab_protocol.measurement import OperatorProfile


def run_profile(job: ProfileJob, folder: Path) -> OperatorProfile:
    """Profile a model; what stands against it is in the record.

    Args:
        job: The model.
        folder: Where files may lie for a while.
    """
    try:
        _confine(job)
        if job.runtime is RuntimeName.LITERT:
            from trimtab_agent.profile.litert_profiler import profile_litert  # noqa: PLC0415

            found = profile_litert(job)
        else:
            from trimtab_agent.profile.onnx_profiler import profile_onnx  # noqa: PLC0415

            found = profile_onnx(job, folder)
    except TrimtabError as error:
        return absent_profile(error.message)
    except MemoryError:
        return absent_profile(
            f"profiling needs more than the {job.max_memory_bytes} bytes that a child may have"
        )
    except OSError as error:
        return absent_profile(f"profiling failed: {error}")
    return normalise(found, job.timed_p50_ms)


def _confine(job: ProfileJob) -> None:
    """As the timed runs: threads inherit the affinity, so it is set before there are any."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(job.threads)
    if job.affinity:
        os.sched_setaffinity(0, job.affinity)
    if job.max_memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (job.max_memory_bytes, job.max_memory_bytes))


def main(job_path: Path, result_path: Path, parent_pid: int) -> int:
    """Read the job, do it, write the result."""
    die_with_parent(parent_pid)
    job = ProfileJob.model_validate_json(job_path.read_bytes())
    result_path.write_text(run_profile(job, result_path.parent).model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
