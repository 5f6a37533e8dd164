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
from trimtab_agent.measure.protocol import Bench, measure
from trimtab_agent.store import Store, hash_file
from trimtab_protocol.errors import ErrorCode, ModelError
from trimtab_protocol.manifest import RUNTIME_FOR, ArtifactRef, ModelFormat
from trimtab_protocol.measurement import Measurement, MeasureSpec
from trimtab_protocol.reading import Reading


def measure_file(
    path: Path,
    *,
    threads: int,
    processes: int,
    min_steady_s: float,
    is_spinning_allowed: bool,
) -> Measurement:
    """Measure a model file with the whole protocol.

    Raises:
        ModelError: `model.unreadable` if it is not there or of no known format; otherwise why the
            runtime could not load or run it.
    """
    model_format = _format_of(path)
    facts = hardware.read_hardware()
    settings = Settings(
        device_class=hardware.derive_device_class(facts, threads),
        threads=threads,
        is_spinning_allowed=is_spinning_allowed,
        lock="/tmp/trimtab-measure.lock",  # noqa: S108 - the same lock as the resident's default
    )
    slug = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._")[:64] or "model"
    subject = Subject(
        artifact=ArtifactRef(name=slug, version=1, sha256=_digest(path)),
        runtime=RUNTIME_FOR[model_format],
        model_path=str(path),
        size_bytes=path.stat().st_size,
    )
    spec = MeasureSpec(processes=processes, min_steady_s=min_steady_s)
    return measure(Bench(settings, _show_progress), subject, spec)


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
