"""Measurements for tests: made from a few figures, complete like a real one."""

from __future__ import annotations

from trimtab_protocol.manifest import ArtifactRef, RuntimeName
from trimtab_protocol.measurement import (
    ColdStart,
    Comparison,
    Condition,
    Energy,
    Latency,
    Measurement,
    MeasureSpec,
    Memory,
    Stability,
    WarmUp,
)
from trimtab_protocol.reading import absent, known


def make_measurement(
    artifact: ArtifactRef,
    *,
    p50_ms: float = 1.0,
    p90_ms: float = 1.2,
    device_class: str = "sim",
    measurement_id: str = "m-1",
    size_bytes: int = 1000,
) -> Measurement:
    """A measurement with the given latencies."""
    return Measurement(
        measurement_id=measurement_id,
        artifact=artifact,
        size_bytes=size_bytes,
        condition=Condition(
            device_class=device_class,
            runtime=RuntimeName.ONNXRUNTIME,
            runtime_version="1.0",
            threads=1,
        ),
        spec=MeasureSpec(),
        cold_start=ColdStart(
            spawn_ms=known(10.0),
            import_ms=known(100.0),
            load_ms=known(5.0),
            first_inference_ms=known(3.0),
        ),
        warm_up=WarmUp(runs=10, duration_s=0.1, is_converged=True),
        latency=Latency(
            processes=5,
            runs=1000,
            p50_ms=known(p50_ms, p50_ms * 0.99, p50_ms * 1.01),
            p90_ms=known(p90_ms, p90_ms * 0.99, p90_ms * 1.01),
            p95_ms=absent("too few runs"),
            p99_ms=absent("too few runs"),
            max_ms=known(p90_ms * 2),
            cpu_ms=known(p50_ms),
        ),
        memory=Memory(
            peak_bytes=known(5e7),
            load_peak_bytes=known(5e7),
            baseline_bytes=known(4e7),
            over_baseline_bytes=known(1e7),
        ),
        energy=Energy(per_inference_mj=absent("no sensor")),
        stability=Stability.STABLE,
        started_at=1.0,
        duration_s=1.0,
    )


def make_comparison(
    incumbent: ArtifactRef, ratio: float, low: float | None = None, high: float | None = None
) -> Comparison:
    """A comparison with the same ratio at p50 and p90."""
    reading = known(ratio, low, high)
    return Comparison(incumbent=incumbent, p50_ratio=reading, p90_ratio=reading)
