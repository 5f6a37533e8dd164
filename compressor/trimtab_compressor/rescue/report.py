"""What a climb found, as findings of a pass, as a sentence and as a document."""

from __future__ import annotations

from dataclasses import fields

from pydantic import Field

from trimtab_compressor.rescue.climb import Climb
from trimtab_compressor.rescue.decide import Goal, Observation, choose_best
from trimtab_compressor.rescue.rungs import RUNGS, Setting
from trimtab_compressor.specs.base import Spec
from trimtab_protocol.base import WireModel
from trimtab_protocol.manifest import ModelFormat, Scalar


class SettingResult(WireModel):
    """One setting that was tried."""

    rung: str
    title: str
    passes: tuple[str, ...] = Field(description="in order, with their parameters")
    accuracy: float | None = Field(description="exact, on the file's runtime")
    on_host: float | None = Field(default=None, description="by the default kernels of this CPU")
    drop_points: float | None
    size_bytes: int | None
    seconds: float | None = Field(
        description="of the passes that no earlier setting had done, when they were first computed"
    )
    is_kept: bool = Field(description="the best so far, so later rungs stand on it")
    reason: str = Field(default="", description="why it could not be done here")


class FormatReport(WireModel):
    """The climb of one format."""

    format: ModelFormat
    metric: str
    samples: int
    float_accuracy: float
    float_bytes: int
    settings: tuple[SettingResult, ...]
    enough: str | None = Field(description="the rung that was enough; none: no rung is")
    file: str | None


class RescueReport(WireModel):
    """What `rescue` did."""

    subject: str
    max_drop_points: float
    formats: tuple[FormatReport, ...]


def list_settings(climb: Climb) -> tuple[SettingResult, ...]:
    """Every observation, in order."""
    titles = {rung.name: rung.title for rung in RUNGS}
    return tuple(
        _describe(row, titles[row.rung], climb.goal, is_kept=_is_kept(climb, at))
        for at, row in enumerate(climb.seen)
    )


def enough_rung(climb: Climb) -> str | None:
    """The rung that was enough."""
    return climb.stop.best.rung if climb.stop.is_enough and climb.stop.best is not None else None


def report_findings(climb: Climb) -> dict[str, Scalar]:
    """As plain values: the rung, the chain, and the best accuracy that each rung gave."""
    found: dict[str, Scalar] = {"float_accuracy": round(climb.goal.reference, 6)}
    best = climb.stop.best
    if best is not None:
        found |= {"rung": best.rung, "passes": " > ".join(list_passes(best.setting))}
    for rung in RUNGS:
        row = choose_best([seen for seen in climb.seen if seen.rung == rung.name])
        if row is not None and row.measured is not None:
            found[f"accuracy_{rung.name}"] = round(row.measured.accuracy, 6)
    return found


def explain_failure(climb: Climb) -> str:
    """Why there is no file, and what a person can do."""
    allowed = f"{climb.goal.max_drop_points:g} points"
    best = climb.stop.best
    if best is None or best.measured is None:
        reasons = "; ".join(dict.fromkeys(row.reason for row in climb.seen if row.reason))
        return f"no rung of the ladder can be done with this model: {reasons}"
    lost = climb.goal.drop_points(best.measured.accuracy)
    return (
        f"no rung of the ladder keeps the drop within {allowed}: the best, {best.rung}, loses "
        f"{lost:.2f}; allow more, give more calibration samples, or train with quantization (a task "
        "and the pass quantize_aware)"
    )


def list_passes(setting: Setting) -> tuple[str, ...]:
    """The passes of a setting, without what stands at its default."""
    return tuple(_name_pass(spec) for spec in (*setting.network_passes(), *setting.file_passes()))


def _describe(row: Observation, title: str, goal: Goal, *, is_kept: bool) -> SettingResult:
    found = row.measured
    return SettingResult(
        rung=row.rung,
        title=title,
        passes=list_passes(row.setting),
        accuracy=found.accuracy if found else None,
        on_host=found.on_host if found else None,
        drop_points=round(goal.drop_points(found.accuracy), 4) if found else None,
        size_bytes=found.size_bytes if found else None,
        seconds=found.seconds if found else None,
        is_kept=is_kept,
        reason=row.reason,
    )


def _is_kept(climb: Climb, at: int) -> bool:
    """Whether it is better than all before it."""
    row = climb.seen[at]
    return row.measured is not None and choose_best(climb.seen[: at + 1]) is row


def _name_pass(spec: Spec) -> str:
    """A pass, and the parameters that are not at their defaults."""
    defaults = {row.name: row.default for row in fields(spec)}
    told = [
        f"{name}={', '.join(value) if isinstance(value, tuple) else value}"
        for name in defaults
        if (value := getattr(spec, name)) != defaults[name]
    ]
    return " ".join((spec.pass_name, *told))
