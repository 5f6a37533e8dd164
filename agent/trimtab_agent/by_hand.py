"""What a person at the device asks for: measure this file, what is active here."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from trimtab_agent import hardware
from trimtab_agent.config import load_config
from trimtab_agent.disk import Disk
from trimtab_agent.measure.jobs import Settings, Subject
from trimtab_agent.measure.protocol import Bench, compare, measure
from trimtab_agent.store import Store, hash_file
from trimtab_protocol.base import WireModel
from trimtab_protocol.errors import ErrorCode, ModelError
from trimtab_protocol.manifest import RUNTIME_FOR, ArtifactRef, ModelFormat
from trimtab_protocol.measurement import (
    Comparison,
    Heat,
    Measurement,
    MeasureSpec,
    OperatorProfile,
)
from trimtab_protocol.reading import Reading

SHOWN_OPERATORS = 10

MIN_PAIRS_FOR_VERDICT = 5
"""Of processes next to each other. With n pairs of one and the same model, all fall on the same side
with a chance of 2 / 2**n: every second time with two, 1 in 16 with five."""


class MeasuredFiles(WireModel):
    """What `measure` found: one model, or two in ABBA order."""

    measurement: Measurement
    against: Measurement | None = None
    comparison: Comparison | None = None


def measure_file(
    path: Path,
    *,
    threads: int,
    processes: int,
    min_steady_s: float,
    is_spinning_allowed: bool,
    is_profiled: bool = False,
    against: Path | None = None,
) -> MeasuredFiles:
    """Measure a model file with the whole protocol, interleaved with another one if there is one.

    Raises:
        ModelError: `model.unreadable` if it is not there or of no known format; otherwise why the
            runtime could not load or run it.
    """
    subject = _subject(path)
    other = _subject(against) if against is not None else None
    facts = hardware.read_hardware()
    settings = Settings(
        device_class=hardware.derive_device_class(facts, threads),
        threads=threads,
        is_spinning_allowed=is_spinning_allowed,
        lock="/tmp/trimtab-measure.lock",  # noqa: S108 - the same lock as the resident's default
    )
    spec = MeasureSpec(processes=processes, min_steady_s=min_steady_s, is_profiled=is_profiled)
    bench = Bench(settings, _show_progress)
    if other is None:
        return MeasuredFiles(measurement=measure(bench, subject, spec))
    first, second, comparison = compare(bench, subject, other, spec)
    return MeasuredFiles(measurement=first, against=second, comparison=comparison)


def _subject(path: Path) -> Subject:
    model_format = _format_of(path)
    slug = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._")[:64] or "model"
    return Subject(
        artifact=ArtifactRef(name=slug, version=1, sha256=_digest(path)),
        runtime=RUNTIME_FOR[model_format],
        model_path=str(path),
        size_bytes=path.stat().st_size,
    )


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
        ("runs", f"{latency.runs} in {latency.processes} process(es)"),
        ("import", _text(cold.import_ms, "ms")),
        ("load", _text(cold.load_ms, "ms")),
        ("first inference", _text(cold.first_inference_ms, "ms")),
        ("peak memory", _text(memory.peak_bytes, "bytes")),
        ("over the runtime", _text(memory.over_baseline_bytes, "bytes")),
        ("energy", _text(measurement.energy.per_inference_mj, "mJ per inference")),
        ("stability", "; ".join((measurement.stability.value, *measurement.stability_reasons))),
        *_render_heat(measurement.heat),
        *_render_operators(measurement.operators),
    ]
    return "\n".join(f"{name:>16}  {value}" for name, value in rows)


def read_status(config_path: Path, *, as_json: bool) -> str:
    """Active and last good artifact per model name, with the stable path for applications.

    Raises:
        ConfigError: The configuration cannot be read.
    """
    loaded = load_config(config_path)
    store = Store(loaded.state_dir, Disk())
    rows = {}
    for name in store.names():
        active, good = store.active(name), store.last_good(name)
        link = loaded.state_dir / "models" / name / "active"
        rows[name] = {
            "active": str(active.ref) if active else None,
            "path": str(link / active.model_path.name) if active else None,
            "is_whole": active.is_whole() if active else None,
            "last_good": str(good.ref) if good else None,
        }
    if as_json:
        return json.dumps(rows, indent=2)
    if not rows:
        return f"no model has been deployed to {loaded.credentials.device} yet"
    return "\n".join(
        f"{name}: active {row['active']} at {row['path']}, last good {row['last_good']}"
        for name, row in rows.items()
    )


def _format_of(path: Path) -> ModelFormat:
    if not path.is_file():
        raise ModelError(f"{path} is not a file", code=ErrorCode.MODEL_UNREADABLE)
    try:
        return ModelFormat(path.suffix.lower().lstrip("."))
    except ValueError as error:
        known = ", ".join(f".{row.value}" for row in ModelFormat)
        raise ModelError(
            f"{path} ends in {path.suffix or 'nothing'}; known are {known}",
            code=ErrorCode.MODEL_UNREADABLE,
        ) from error


def _digest(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read: {error.strerror}", code=ErrorCode.MODEL_UNREADABLE
        ) from error


def _text(reading: Reading, unit: str) -> str:
    if reading.value is None:
        return f"absent: {reading.absent}"
    digits = ",.0f" if unit == "bytes" else ".4f"
    if reading.interval is None:
        return f"{reading.value:{digits}} {unit}"
    low, high = reading.interval.low, reading.interval.high
    return f"{reading.value:{digits}} [{low:{digits}}, {high:{digits}}] {unit}"


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\rprocess {done} of {total}", end=end, file=sys.stderr, flush=True)
