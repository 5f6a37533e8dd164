"""What one device found for one artifact, with its conditions.

Every value may be absent, with a reason. Units are in the names. The way to measure is described
in `docs/measurement.md`; the percentile rule is MLPerf's early stopping at confidence 0.99
(MLPerf Inference rules, appendix "Early Stopping Criterion").
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Annotated

from pydantic import Field

from trimtab_protocol.base import Identifier, Name, UnixTime, WireModel
from trimtab_protocol.budget import Metric
from trimtab_protocol.manifest import ArtifactRef, RuntimeName
from trimtab_protocol.reading import Reading, absent, known

MIN_RUNS_FOR_PERCENTILE: dict[int, int] = {50: 11, 90: 64, 95: 130, 99: 662}
"""A percentile may be published only from at least this many runs."""


class MeasureSpec(WireModel):
    """How much to measure. The defaults are for a verdict; a demo may ask for less.

    Args:
        processes: Fresh child processes; the interval comes from the spread between them.
        min_runs: Timed runs per process, at least.
        min_steady_s: Timed seconds per process, at least.
        warm_up_s: Seconds of warm-up per process, at least (and at least 10 runs).
        max_process_s: A process that takes longer is killed and the measurement fails.
        threads: Intra-operator threads; None for the agent's own setting.
        paced_period_ms: Also time one inference per so many milliseconds, as an application with a
            frame rate does; None for back-to-back runs only.
        paced_runs: Timed runs at that pace, per process.
        energy_windows: Windows of load, each between two idle ones; 0 for no figure of energy.
        energy_window_s: Seconds per window, at least; a slow sensor lengthens it.
        is_profiled: Also take an operator profile, in a process of its own.
    """

    processes: Annotated[int, Field(ge=1, le=50)] = 5
    min_runs: Annotated[int, Field(ge=11, le=1_000_000)] = 200
    min_steady_s: Annotated[float, Field(ge=0, le=600)] = 5.0
    warm_up_s: Annotated[float, Field(ge=0, le=120)] = 1.0
    max_process_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    threads: Annotated[int, Field(ge=1, le=256)] | None = None
    paced_period_ms: Annotated[float, Field(ge=1, le=60_000)] | None = None
    paced_runs: Annotated[int, Field(ge=11, le=100_000)] = 64
    energy_windows: Annotated[int, Field(ge=0, le=50)] = 5
    energy_window_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    is_profiled: bool = False


class Stability(str, Enum):
    """How far the latency figures may be trusted."""

    STABLE = "stable"
    NOISY = "noisy"  # spread between or within processes over its bound
    DRIFTING = "drifting"  # the second half differs from the first
    THROTTLED = "throttled"
    CONTENDED = "contended"  # other work took the CPU
    UNKNOWN = "unknown"


class Condition(WireModel):
    """Under which circumstances the figures were taken."""

    device_class: Name
    runtime: RuntimeName
    runtime_version: str
    runtime_package: str = Field(
        default="", description="ai-edge-litert, tflite-runtime, onnxruntime"
    )
    providers: tuple[str, ...] = ()
    threads: Annotated[int, Field(ge=1)]
    affinity: tuple[int, ...] = ()
    is_spinning_allowed: bool | None = None
    board: str = ""
    cpu: str = ""
    kernel: str = ""
    machine: str = ""
    python: str = ""
    memory_total_bytes: int | None = None
    page_bytes: int | None = None
    governor_name: str | None = None
    load_average_1m: float | None = None
    boot_id: str | None = None
    soc: str = Field(default="", description="such as brcm,bcm2712 or nvidia,tegra234")
    operating_system: str = ""
    power_mode: str | None = Field(default=None, description="nvpmodel's name for it, on a Jetson")
    min_clock_khz: int | None = None
    max_clock_khz: int | None = None
    are_clocks_pinned: bool | None = Field(
        default=None, description="lowest and highest allowed clock are the same"
    )
    is_turbo_allowed: bool | None = None
    is_container: bool | None = None
    fingerprint: str = Field(default="", description="digest of all that decides the device class")
    is_degraded: bool = Field(default=False, description="measured although preflight complained")
    preflight: tuple[str, ...] = Field(default=(), description="what preflight complained of")


class ColdStart(WireModel):
    """Phases of the first run in a fresh process; medians over processes."""

    spawn_ms: Reading
    import_ms: Reading
    load_ms: Reading
    first_inference_ms: Reading


class WarmUp(WireModel):
    """What was thrown away before the timed runs."""

    runs: int
    duration_s: float
    is_converged: bool


class Latency(WireModel):
    """Latency of one kind of runs: medians over processes, intervals by bootstrap over processes.

    A percentile over too few runs is absent, see MIN_RUNS_FOR_PERCENTILE.
    """

    processes: int
    runs: int = Field(description="timed runs in all processes together")
    p50_ms: Reading
    p90_ms: Reading
    p95_ms: Reading
    p99_ms: Reading
    max_ms: Reading
    cpu_ms: Reading = Field(description="CPU time of all threads per inference")
    mad_ms: Reading | None = Field(
        default=None, description="median absolute deviation of single runs from their median"
    )
    outliers: int | None = Field(
        default=None, description="runs above the median by more than five MAD; none is removed"
    )


class PacedLatency(WireModel):
    """One inference per period: caches cool down and clocks drop between the runs."""

    period_ms: float
    latency: Latency
    late: int = Field(default=0, description="runs that began late: the one before still ran")


class Memory(WireModel):
    """Peaks by VmHWM of the process that runs the model, never ru_maxrss."""

    peak_bytes: Reading
    load_peak_bytes: Reading
    baseline_bytes: Reading = Field(
        description="VmHWM with the runtime imported and no model loaded"
    )
    over_baseline_bytes: Reading
    inference_peak_bytes: Reading | None = Field(
        default=None, description="VmHWM since the model was loaded"
    )
    rss_bytes: Reading | None = Field(default=None, description="after the timed runs")
    pss_bytes: Reading | None = Field(
        default=None, description="as rss, shared pages divided by the processes that share them"
    )
    uss_bytes: Reading | None = Field(default=None, description="pages of this process alone")
    baseline_pss_bytes: Reading | None = None
    baseline_uss_bytes: Reading | None = None


class SensorKind(str, Enum):
    """How a sensor comes to its figures."""

    COUNTER = "counter"  # energy that only grows
    SAMPLED = "sampled"  # power, read again and again
    EXTERNAL = "external"  # somebody else's meter: a series of (time, watts)


class Energy(WireModel):
    """Energy per inference, or the reason why there is none."""

    per_inference_mj: Reading = Field(description="dynamic: above what the idle device takes")
    source: str = Field(default="", description="sensor that was read")
    scope: str = Field(default="", description="what it sees: package, rails, module, board")
    gross_mj: Reading | None = Field(
        default=None, description="per inference, the idle power included"
    )
    gross_uncertainty_mj: Reading | None = Field(
        default=None, description="of gross_mj, as below; a constant error of the sensor counts"
    )
    uncertainty_mj: Reading | None = Field(
        default=None,
        description="standard uncertainty of per_inference_mj: between windows, of the idle power, "
        "and the sensor's own where its maker states one",
    )
    idle_power_mw: Reading | None = Field(
        default=None, description="the model loaded and not run; drifts are interpolated"
    )
    load_power_mw: Reading | None = None
    kind: SensorKind | None = None
    windows: int = 0
    window_s: float | None = None
    coverage: Reading | None = Field(
        default=None, description="share of the windows' time that samples cover, 0 to 1"
    )
    max_gap_s: float | None = Field(default=None, description="longest time without a sample")


class ThrottleEvent(WireModel):
    """Something that slowed the device down while it was measured."""

    source: str = Field(description="the file or counter that said so")
    what: str = Field(description="such as: under-voltage, clock capped, soft temperature limit")
    count: float = Field(description="events, or seconds for a state that was seen")
    is_voiding: bool = Field(description="whether the latency figures are not to be trusted")


class Zone(WireModel):
    """One temperature sensor over the run, in degrees Celsius."""

    name: str
    before: Reading
    highest: Reading
    after: Reading


class Heat(WireModel):
    """Temperature, clocks and throttling, watched while the runs were timed."""

    zones: tuple[Zone, ...] = ()
    throttling: tuple[ThrottleEvent, ...] = ()
    clock_residency: dict[str, float] = Field(
        default_factory=dict,
        description="share of the time per clock in kHz, 0 to 1, of the CPUs that were used",
    )
    highest_clock_share: Reading = Field(description="share of the time at the highest clock")
    absent: tuple[str, ...] = Field(default=(), description="what could not be watched, and why")


class Operator(WireModel):
    """One operator as the runtime executed it: fused and renamed, not as the file has it."""

    node_index: int | None = None
    name: str
    op: str
    fused_from: tuple[str, ...] = ()
    provider: str = ""
    calls: int
    total_us: float
    p50_us: float
    share: Annotated[float, Field(ge=0, le=1)] = Field(
        description="of the time of all operators; profiling slows down, so only shares carry over"
    )
    input_bytes: int | None = None
    output_bytes: int | None = None
    parameter_bytes: int | None = None


class OperatorProfile(WireModel):
    """Which operators take the time; from a run of its own, or absent with the reason."""

    absent: str | None = None
    source: str = Field(default="", description="what took it: onnxruntime trace, litert profiler")
    runtime: str = ""
    mode: str = Field(default="", description="the kernels that ran, such as delegate or builtin")
    runs: int = 0
    operators: tuple[Operator, ...] = ()
    unattributed_us: float | None = Field(
        default=None, description="per run: whole inference - sum of its operators"
    )
    resolution_us: float = 1.0
    slowdown: float | None = Field(
        default=None, description="p50 of the profiled run / p50 of the timed runs"
    )


class Measurement(WireModel):
    """One artifact on one device under one condition."""

    measurement_id: Identifier
    artifact: ArtifactRef
    size_bytes: int
    condition: Condition
    spec: MeasureSpec
    cold_start: ColdStart
    warm_up: WarmUp
    latency: Latency
    memory: Memory
    paced: PacedLatency | None = None
    energy: Energy
    stability: Stability
    stability_reasons: tuple[str, ...] = ()
    heat: Heat | None = None
    operators: OperatorProfile | None = None
    are_samples_kept: bool = Field(
        default=False, description="raw nanoseconds lie on the device, in a folder of this id"
    )
    started_at: UnixTime
    duration_s: float

    def readings(self, accuracy_drop: float | None = None) -> Mapping[Metric, Reading]:
        """The figures a budget can limit.

        Args:
            accuracy_drop: From the manifest's quality; a device does not measure it.
        """
        drop = absent("not evaluated") if accuracy_drop is None else known(accuracy_drop)
        return {
            Metric.P50_MS: self.latency.p50_ms,
            Metric.P90_MS: self.latency.p90_ms,
            Metric.P95_MS: self.latency.p95_ms,
            Metric.P99_MS: self.latency.p99_ms,
            Metric.ENERGY_MJ: self.energy.per_inference_mj,
            Metric.PEAK_MEMORY_BYTES: self.memory.peak_bytes,
            Metric.SIZE_BYTES: known(float(self.size_bytes)),
            Metric.ACCURACY_DROP: drop,
        }


class Comparison(WireModel):
    """Candidate against incumbent on the same device, measured in interleaved processes."""

    incumbent: ArtifactRef
    p50_ratio: Reading = Field(description="candidate / incumbent; below 1 is faster")
    p90_ratio: Reading
