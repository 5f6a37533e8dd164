"""Measurements as tables for a terminal, and a bar that shows how far one is."""

from __future__ import annotations

import sys
import time

from trimtab_agent.by_hand import MeasuredFiles
from trimtab_protocol.measurement import (
    Comparison,
    Energy,
    Heat,
    Measurement,
    Memory,
    OperatorProfile,
    PacedLatency,
)
from trimtab_protocol.reading import Reading

SHOWN_OPERATORS = 10
BAR_WIDTH = 30

MIN_PAIRS_FOR_VERDICT = 5
"""Of processes next to each other. With n pairs of one and the same model, all fall on the same side
with a chance of 2 / 2**n: every second time with two, 1 in 16 with five."""


def render_measured(found: MeasuredFiles) -> str:
    """One measurement, or two and what their comparison says."""
    parts = [render(found.measurement)]
    if found.against is not None and found.comparison is not None:
        parts += [
            render(found.against),
            _render_comparison(found.comparison, found.measurement.latency.processes),
        ]
    return "\n\n".join(parts)


def _render_comparison(comparison: Comparison, pairs: int) -> str:
    ratio = comparison.p50_ratio
    rows = [
        ("p50 ratio", _text(ratio, "of the other's, measured interleaved")),
        ("p90 ratio", _text(comparison.p90_ratio, "of the other's, measured interleaved")),
    ]
    if ratio.value is None:
        verdict = f"cannot be told: {ratio.absent}"
    elif pairs < MIN_PAIRS_FOR_VERDICT:
        verdict = (
            f"cannot be told from {pairs} process(es) of each: "
            f"use --processes {MIN_PAIRS_FOR_VERDICT} or more"
        )
    elif ratio.high_or_value() < 1:
        verdict = f"the first is faster: it takes {ratio.value:.1%} of the other's time"
    elif ratio.low_or_value() > 1:
        verdict = f"the first is slower: it takes {ratio.value:.1%} of the other's time"
    else:
        verdict = "they cannot be told apart: the interval of the ratio contains 1"
    return "\n".join(f"{name:>16}  {value}" for name, value in [*rows, ("verdict", verdict)])


def _render_heat(heat: Heat | None) -> list[tuple[str, str]]:
    if heat is None:
        return []
    rows = [
        (zone.name[:16], f"{_text(zone.before, '°C')}, at most {_text(zone.highest, '°C')}")
        for zone in heat.zones
    ]
    share = heat.highest_clock_share
    text = f"absent: {share.absent}" if share.value is None else f"{share.value:.0%} of the time"
    return [*rows, ("at full clock", text)]


def _render_operators(profile: OperatorProfile | None) -> list[tuple[str, str]]:
    if profile is None:
        return []
    if profile.absent is not None:
        return [("operators", f"absent: {profile.absent}")]
    return [
        ("operators" if rank == 0 else "", f"{row.share:6.1%}  {row.op}  {row.name}")
        for rank, row in enumerate(profile.operators[:SHOWN_OPERATORS])
    ]


def _render_paced(paced: PacedLatency | None) -> list[tuple[str, str]]:
    if paced is None:
        return []
    late = f", {paced.late} late" if paced.late else ""
    pace = f"ms, one per {paced.period_ms:g} ms{late}"
    return [
        ("paced p50", _text(paced.latency.p50_ms, pace)),
        ("paced p90", _text(paced.latency.p90_ms, pace)),
    ]


def _render_memory(memory: Memory) -> list[tuple[str, str]]:
    rows = [
        ("peak memory", _text(memory.peak_bytes, "bytes")),
        ("over the runtime", _text(memory.over_baseline_bytes, "bytes")),
    ]
    if memory.pss_bytes is not None and memory.uss_bytes is not None:
        rows.append(("PSS", _text(memory.pss_bytes, "bytes, shared pages divided")))
        rows.append(("USS", _text(memory.uss_bytes, "bytes of this process alone")))
    return rows


def _render_energy(energy: Energy) -> list[tuple[str, str]]:
    if energy.per_inference_mj.value is None:
        reason, _, tried = (energy.per_inference_mj.absent or "").partition(": ")
        where = (
            " (--json lists what was looked for)" if ";" in tried else f": {tried}" * bool(tried)
        )
        return [("energy", f"unavailable: {reason}{where}")]
    rows = [
        ("energy", _text(energy.per_inference_mj, f"mJ per inference above idle ({energy.scope})"))
    ]
    if energy.gross_mj is not None:
        rows.append(("with idle power", _text(energy.gross_mj, "mJ per inference")))
    if energy.uncertainty_mj is not None:
        rows.append(("uncertainty", _text(energy.uncertainty_mj, "mJ, one standard deviation")))
    return rows


def render(measurement: Measurement) -> str:
    """A measurement as a table for a terminal."""
    latency, memory, cold = measurement.latency, measurement.memory, measurement.cold_start
    condition = measurement.condition
    rows = [
        ("model", f"{measurement.artifact.name}, {measurement.size_bytes:,} bytes"),
        (
            "runtime",
            f"{condition.runtime_package} {condition.runtime_version}, {condition.threads} thread(s)",
        ),
        ("device class", condition.device_class),
        ("p50", _text(latency.p50_ms, "ms")),
        ("p90", _text(latency.p90_ms, "ms")),
        ("p95", _text(latency.p95_ms, "ms")),
        ("p99", _text(latency.p99_ms, "ms")),
        (
            "runs",
            f"{latency.runs} in {latency.processes} process(es), {latency.outliers} far above p50",
        ),
        *_render_paced(measurement.paced),
        ("import", _text(cold.import_ms, "ms")),
        ("load", _text(cold.load_ms, "ms")),
        ("first inference", _text(cold.first_inference_ms, "ms")),
        *_render_memory(memory),
        *_render_energy(measurement.energy),
        ("stability", "; ".join((measurement.stability.value, *measurement.stability_reasons))),
        *_render_heat(measurement.heat),
        *_render_operators(measurement.operators),
    ]
    return "\n".join(f"{name:>16}  {value}" for name, value in rows)


def _text(reading: Reading, unit: str) -> str:
    if reading.value is None:
        return f"absent: {reading.absent}"
    digits = ",.0f" if unit.startswith("bytes") else ".4f"
    if reading.interval is None:
        return f"{reading.value:{digits}} {unit}"
    low, high = reading.interval.low, reading.interval.high
    return f"{reading.value:{digits}} [{low:{digits}}, {high:{digits}}] {unit}"


class ProgressBar:
    """A bar on standard error where that is a terminal; nothing elsewhere.

    Use it as a context manager: entering it shows an empty bar, and leaving it ends the line,
    however what was measured ended.

    Args:
        width: Characters of the bar.
    """

    def __init__(self, width: int = BAR_WIDTH) -> None:
        self._width = width
        self._started_s = time.monotonic()
        self._is_shown = sys.stderr.isatty()

    def __call__(self, share: float, what: str) -> None:
        """Show that this share, 0 to 1, of the planned time is done, and what was done last."""
        if not self._is_shown:
            return
        text = bar_line(share, what, time.monotonic() - self._started_s, self._width)
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> ProgressBar:
        self(0.0, "starting")
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            print(file=sys.stderr, flush=True)


def bar_line(share: float, what: str, passed_s: float, width: int) -> str:
    """One line: bar, percent, what was done last, and the seconds that are left at this pace."""
    full = int(share * width)
    left = f", about {passed_s * (1 - share) / share:.0f} s left" if 0 < share < 1 else ""
    return f"[{'#' * full}{'.' * (width - full)}] {share:4.0%} {what}{left}"
