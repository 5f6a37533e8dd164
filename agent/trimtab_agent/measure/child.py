"""The child that does one job for the resident: `python -m trimtab_agent.measure.child JOB RESULT PARENT_PID`.

It loads no runtime itself: each process of a measurement is a fresh worker.
"""

from __future__ import annotations

import sys
import time
from math import inf
from pathlib import Path

from trimtab_agent.measure.jobs import Job, JobKind, JobResult
from trimtab_agent.measure.protocol import Bench, check_subject, compare, measure
from trimtab_agent.processes import die_with_parent
from trimtab_protocol.errors import TrimtabError


def run_job(job: Job) -> JobResult:
    """Do a job; a model that fails is a result, not an exception."""
    bench = Bench(job.settings, until_s=time.monotonic() + (job.max_job_s or inf))
    try:
        return _run(bench, job)
    except TrimtabError as error:
        return JobResult(job_id=job.job_id, error_code=error.code, detail=error.message)


def _run(bench: Bench, job: Job) -> JobResult:
    check_subject(bench, job.subject, job.spec.max_process_s)
    if job.kind is JobKind.CHECK:
        return JobResult(job_id=job.job_id)
    if job.incumbent is None:
        return JobResult(job_id=job.job_id, measurement=measure(bench, job.subject, job.spec))
    candidate, incumbent, comparison = compare(bench, job.subject, job.incumbent, job.spec)
    return JobResult(
        job_id=job.job_id, measurement=candidate, incumbent=incumbent, comparison=comparison
    )


def main(job_path: Path, result_path: Path, parent_pid: int) -> int:
    """Read the job, do it, write the result."""
    die_with_parent(parent_pid)
    job = Job.model_validate_json(job_path.read_bytes())
    result_path.write_text(run_job(job).model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
