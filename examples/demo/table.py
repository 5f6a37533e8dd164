"""The table at the end: candidate x class."""

from __future__ import annotations

from result import CandidateOnClass, DemoCandidate, DemoResult, DeviceOutcome
from rich import box
from rich.table import Table

from trimtab_protocol.reading import Reading

COLUMNS = (
    "recipe", "format", "class", "accuracy", "bytes", "p50 ms", "p90 ms", "÷ fp32", "peak MB",
    "energy", "stability", "verdict",
)  # fmt: skip
LEFT_COLUMNS = COLUMNS[:3]


def make_table(result: DemoResult) -> Table:
    """One row per candidate and class; the chosen one stands out."""
    title = "what the devices measured (interval: 95 %, over processes; ÷ fp32: p50 against fp32 in onnx)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in LEFT_COLUMNS else "right", overflow="fold")
    for candidate in result.candidates:
        for one in candidate.classes:
            style = "bold green" if candidate.is_chosen else ""
            table.add_row(*row_of(candidate, one), style=style)
    return table


def row_of(candidate: DemoCandidate, one: CandidateOnClass) -> tuple[str, ...]:
    """The cells of one row, in the order of COLUMNS."""
    quality = candidate.quality
    accuracy = quality.exact if quality is not None and quality.exact is not None else None
    measurement = one.measurement
    return (
        candidate.recipe,
        candidate.format.value,
        one.device_class,
        f"{accuracy:.4f}" if accuracy is not None else "—",
        f"{candidate.size_bytes:,}" if candidate.size_bytes is not None else "—",
        show_ms(measurement.latency.p50_ms) if measurement else "—",
        show_ms(measurement.latency.p90_ms) if measurement else "—",
        f"{one.p50_ratio_to_fp32:.2f}" if one.p50_ratio_to_fp32 is not None else "—",
        show_megabytes(measurement.memory.peak_bytes) if measurement else "—",
        show_energy(measurement.energy.per_inference_mj) if measurement else "—",
        measurement.stability.value if measurement else "—",
        one.verdict.outcome.value + ("\nchosen" if candidate.is_chosen else ""),
    )


def show_ms(reading: Reading) -> str:
    """Value and interval."""
    if reading.value is None:
        return "absent"
    if reading.interval is None:
        return f"{reading.value:.4f}"
    return f"{reading.value:.4f}\n{reading.interval.low:.4f}–{reading.interval.high:.4f}"


def show_megabytes(reading: Reading) -> str:
    """Megabytes, or absent."""
    return "absent" if reading.value is None else f"{reading.value / 1e6:.1f}"


def show_energy(reading: Reading) -> str:
    """Millijoules, or the reason why there is no figure, short."""
    if reading.value is not None:
        return f"{reading.value:.3f} mJ"
    return "no sensor" if "sensor" in (reading.absent or "") else "absent"


def show_comparison(device: DeviceOutcome) -> str:
    """What the device found when it ran candidate and incumbent in alternating processes."""
    found = device.comparison
    if found is None or found.p50_ratio.value is None or found.p90_ratio.value is None:
        return ""
    return (
        f"{device.device_class}: p50 {found.p50_ratio.value:.2f} and p90 {found.p90_ratio.value:.2f} "
        f"of {found.incumbent}"
    )
