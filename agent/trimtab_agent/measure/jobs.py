"""What is passed between the resident, its child and the child's workers: JSON.

The resident starts `child` with a Job and reads its JobResult; both are files. The child starts one
`worker` per process with a WorkerJob in a file and talks to it over a socket of their own: Commands
there, Answers back. Never over stdout: libraries print there what they like.
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
    """How the children of this device run, the same for every job.

    Args:
        root: The folder that holds sys/, proc/ and dev/.
        samples_dir: Raw nanoseconds of each measurement are kept here, in a folder named by its id;
            None to keep none.
        max_samples_bytes: The oldest folders give way; 0 for no limit.
    """

    device_class: Name
    threads: int
    is_spinning_allowed: bool = False
    affinity: tuple[int, ...] = ()
    lock: str | None = None
    max_memory_bytes: int = 0
    root: str = "/"
    samples_dir: str | None = None
    max_samples_bytes: int = 0
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
    max_job_s: float | None = Field(
        default=None,
        description="None: the runner's own alone; the child is told the one that holds",
    )


class JobResult(WireModel):
    """What a child found. `error_code` is set exactly when the job did not get through."""

    job_id: str
    measurement: Measurement | None = None
    incumbent: Measurement | None = None
    comparison: Comparison | None = None
    error_code: ErrorCode | None = None
    detail: str = ""


class WorkerJob(WireModel):
    """What one process is started for: to load, check and warm up a model, and then do as told."""

    runtime: RuntimeName
    model_path: str
    threads: int
    is_spinning_allowed: bool
    affinity: tuple[int, ...] = ()
    max_memory_bytes: int = 0
    golden: Golden | None = None
    is_warmed_up: bool = True
    warm_up_s: float = 0.0
    bootstrap_seed: int = 0
    spawned_at_ns: int = Field(description="CLOCK_MONOTONIC just before the process was started")
    proc_root: str = "/proc"
    samples_prefix: str | None = Field(
        default=None, description="raw nanoseconds go to PREFIX-burst.npy and PREFIX-paced.npy"
    )


class Action(str, Enum):
    """What a loaded worker can be told to do."""

    BURST = "burst"  # back-to-back runs, each one timed
    PACED = "paced"  # one run per period, each one timed
    LOAD = "load"  # back-to-back runs for so long, only counted
    FINISH = "finish"  # put together what was found, and end


class Command(WireModel):
    """One order to a worker.

    Args:
        runs: BURST: at least so many. PACED: so many.
        seconds: BURST: at least so long. LOAD: about so long.
        period_ms: PACED: from the beginning of one run to that of the next.
    """

    action: Action
    runs: int = 0
    seconds: float = 0.0
    period_ms: float = 0.0


class PercentileRow(WireModel):
    """One percentile in one process, with block-bootstrap replicates of it."""

    value_ns: float
    replicates_ns: tuple[float, ...]


class TimedRuns(WireModel):
    """The timed runs of one kind in one process; times in nanoseconds."""

    runs: Annotated[int, Field(ge=0)]
    percentiles: dict[int, PercentileRow]
    max_ns: int
    mad_ns: float = Field(description="median absolute deviation from the median")
    outliers: int = Field(description="runs above the median by more than five MAD")
    first_half_median_ns: float
    second_half_median_ns: float
    cpu_ns_per_run: float
    involuntary_switches: int = 0
    wall_ns: int = Field(description="of the whole of it, pauses of paced runs included")
    late: int = Field(default=0, description="paced runs that began late; the one before still ran")


class ProcessMemory(WireModel):
    """Memory of one process in bytes; None where /proc does not say."""

    baseline_bytes: int | None = None
    baseline_pss_bytes: int | None = None
    baseline_uss_bytes: int | None = None
    load_peak_bytes: int | None = None
    inference_peak_bytes: int | None = None
    peak_bytes: int | None = None
    rss_bytes: int | None = None
    pss_bytes: int | None = None
    uss_bytes: int | None = None


class WorkerResult(WireModel):
    """What one process found; times in nanoseconds."""

    runtime_version: str
    runtime_package: str
    providers: tuple[str, ...]
    affinity: tuple[int, ...]
    spawn_ns: int
    import_ns: int
    load_ns: int
    first_inference_ns: int
    warm_up_runs: int = 0
    warm_up_ns: int = 0
    is_warm_up_converged: bool = False
    burst: TimedRuns | None = None
    paced: TimedRuns | None = None
    memory: ProcessMemory = ProcessMemory()
    are_samples_kept: bool = False


class Answer(WireModel):
    """What a worker says after its start and after each command; times of CLOCK_MONOTONIC.

    With an `error_code` it is the last word: the process ends.
    """

    error_code: ErrorCode | None = None
    detail: str = ""
    started_s: float = 0.0
    ended_s: float = 0.0
    runs: int = 0
    result: WorkerResult | None = None
