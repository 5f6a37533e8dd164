"""What a person at the device asks for: measure this file, what is active here."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from trimtab_agent import hardware
from trimtab_agent.config import MeasureSettings, load_config
from trimtab_agent.disk import Disk
from trimtab_agent.measure.jobs import Settings, Subject
from trimtab_agent.measure.protocol import compare, measure
from trimtab_agent.measure.run import Bench, Progress
from trimtab_agent.store import Store, hash_file
from trimtab_protocol.base import WireModel
from trimtab_protocol.errors import ErrorCode, ModelError
from trimtab_protocol.manifest import RUNTIME_FOR, ArtifactRef, ModelFormat
from trimtab_protocol.measurement import Comparison, Measurement, MeasureSpec

SERVICE_LOCK = Path("/run/trimtab/measure.lock")
"""As docs/device-setup.md configures it: systemd/trimtab-agent.service has a /tmp of its own."""


class MeasuredFiles(WireModel):
    """What `measure` found: one model, or two in ABBA order."""

    measurement: Measurement
    against: Measurement | None = None
    comparison: Comparison | None = None


def measure_file(
    path: Path,
    spec: MeasureSpec,
    *,
    settings: Settings,
    against: Path | None = None,
    on_progress: Progress,
) -> MeasuredFiles:
    """Measure a model file with the whole protocol, interleaved with another one if there is one.

    Args:
        path: A .onnx or .tflite file.
        spec: How much to measure.
        settings: See `settings_by_hand`.
        against: Another model file.
        on_progress: See `Bench`.

    Raises:
        ModelError: `model.unreadable` if it is not there or of no known format; otherwise why the
            runtime could not load or run it.
    """
    subject = _subject(path)
    bench = Bench(settings, on_progress)
    if against is None:
        return MeasuredFiles(measurement=measure(bench, subject, spec))
    first, second, comparison = compare(bench, subject, _subject(against), spec)
    return MeasuredFiles(measurement=first, against=second, comparison=comparison)


def settings_by_hand(
    *,
    threads: int,
    is_spinning_allowed: bool,
    samples_dir: Path | None = None,
    meter: Path | None = None,
) -> Settings:
    """How this machine measures when a person asks: with the same lock as the resident."""
    facts = hardware.read_hardware()
    return Settings(
        device_class=hardware.derive_device_class(facts, threads),
        threads=threads,
        is_spinning_allowed=is_spinning_allowed,
        lock=_find_lock(),
        samples_dir=str(samples_dir) if samples_dir is not None else None,
        meter=str(meter) if meter is not None else None,
    )


def _find_lock() -> str:
    """The service's if it runs here, else the resident's default."""
    is_service_here = SERVICE_LOCK.exists() or os.access(SERVICE_LOCK.parent, os.W_OK)
    return str(SERVICE_LOCK) if is_service_here else MeasureSettings().lock


def _subject(path: Path) -> Subject:
    model_format = _format_of(path)
    slug = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._")[:64] or "model"
    return Subject(
        artifact=ArtifactRef(name=slug, version=1, sha256=_digest(path)),
        runtime=RUNTIME_FOR[model_format],
        model_path=str(path),
        size_bytes=path.stat().st_size,
    )


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
