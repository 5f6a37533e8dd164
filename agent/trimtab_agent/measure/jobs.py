"""What is passed between the resident, its child and the child's workers: files of JSON.

The resident starts `child` with a Job; the child starts one `worker` per process with a WorkerJob,
and gets a WorkerResult back. Files, not pipes: libraries print what they like on stdout.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import Field

from trimtab_protocol.base import Name, WireModel
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.manifest import ArtifactRef, Golden, RuntimeName
from trimtab_protocol.measurement import Comparison, Measurement, MeasureSpec


class Subject(WireModel):
    """A model file to be measured or checked."""

    artifact: ArtifactRef
    runtime: RuntimeName
    model_path: str
    size_bytes: int
    golden: Golden | None = None


class JobKind(str, Enum):
    """What a child does."""

    MEASURE = "measure"  # one subject
    PROBE = "probe"  # golden vectors, then the subject against the incumbent
    CHECK = "check"  # golden vectors only


class Settings(WireModel):
    """How the children of this device run, the same for every job."""

    device_class: Name
    threads: int
    is_spinning_allowed: bool = False
    affinity: tuple[int, ...] = ()
    lock: str | None = None
    max_memory_bytes: int = 0
    proc_root: str = "/proc"
    sys_root: str = "/sys"
    meter: str | None = Field(
        default=None, description="file of a power meter outside, see energy/external.py"
    )

    def within(self, max_memory_bytes: int | None) -> Settings:
        """The same with a tighter memory limit, if it is one; 0 of one's own means no limit."""
        limits = [limit for limit in (self.max_memory_bytes, max_memory_bytes) if limit]
        return self.model_copy(update={"max_memory_bytes": min(limits, default=0)})


class Job(WireModel):
    """One piece of work for a child."""

    job_id: str
    kind: JobKind
    subject: Subject
    incumbent: Subject | None = None
    spec: MeasureSpec = MeasureSpec()
    settings: Settings
    max_job_s: float | None = Field(default=None, description="None: the runner's own alone")


class JobResult(WireModel):
    """What a child found. `error_code` is set exactly when the job did not get through."""

    job_id: str
    measurement: Measurement | None = None
    incumbent: Measurement | None = None
    comparison: Comparison | None = None
    error_code: ErrorCode | None = None
    detail: str = ""


class WorkerJob(WireModel):
    """One process: load, check, warm up, time."""

    runtime: RuntimeName
    model_path: str
    threads: int
    is_spinning_allowed: bool
    affinity: tuple[int, ...] = ()
    max_memory_bytes: int = 0
    golden: Golden | None = None
    is_timed: bool = True
    warm_up_s: float = 0.0
    min_runs: int = 0
    min_steady_s: float = 0.0
    bootstrap_seed: int = 0
    spawned_at_ns: int = Field(description="CLOCK_MONOTONIC just before the process was started")
    proc_root: str = "/proc"


class PercentileRow(WireModel):
    """One percentile in one process, with block-bootstrap replicates of it."""

    value_ns: float
    replicates_ns: tuple[float, ...]


class WorkerResult(WireModel):
    """What one process found; times in nanoseconds, sizes in bytes."""

    error_code: ErrorCode | None = None
    detail: str = ""
    runtime_version: str = ""
    runtime_package: str = ""
    providers: tuple[str, ...] = ()
    affinity: tuple[int, ...] = ()
    spawn_ns: int = 0
    import_ns: int = 0
    load_ns: int = 0
    first_inference_ns: int = 0
    warm_up_runs: int = 0
    warm_up_ns: int = 0
    is_warm_up_converged: bool = False
    runs: Annotated[int, Field(ge=0)] = 0
    percentiles: dict[int, PercentileRow] = Field(default_factory=dict)
    max_ns: int = 0
    first_half_median_ns: float = 0.0
    second_half_median_ns: float = 0.0
    cpu_ns_per_run: float = 0.0
    involuntary_switches: int = 0
    steady_ns: int = 0
    baseline_bytes: int | None = None
    load_peak_bytes: int | None = None
    peak_bytes: int | None = None
