"""Rank recipes for one model on one kind of device, by priors. Pure.

Rules:
    1. Small nets get the low end of a prior: what Q/DQ and launching operators cost does not
       shrink with the net.
    2. What is expected to be faster comes first, then what is only smaller, then what cannot be
       done, with the reason. Accuracy is not foreseen: `run` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from trimtab_compressor.device_kinds import DeviceKind, Kind
from trimtab_compressor.gains import DENSE_ONLY, Gain, file_gain, network_gain, technique_of
from trimtab_compressor.inspection.advice import explain_obstacle, list_needs
from trimtab_compressor.inspection.description import Inspection
from trimtab_compressor.inspection.graph import LayerKind
from trimtab_compressor.recipes import Recipe
from trimtab_compressor.specs.base import FileSpec, Need
from trimtab_compressor.specs.training import Train
from trimtab_protocol.base import WireModel
from trimtab_protocol.manifest import ModelFormat

SMALL_MACS = 5_000_000
"""DS-CNN (2.7 million MACs) gained 1.16 where ResNet-18 gained 2.34 (priors.HERE)."""


class Recommendation(WireModel):
    """One recipe in one format.

    Args:
        rank: From 1; None for what cannot be done.
        gain_low: Expected ratio of latencies, float over this; None where only the size shrinks.
        gain_high: As `gain_low`.
        size_ratio: Expected bytes over those of the float model; None if it cannot be said.
        basis: Always "prior": nothing here was measured with this model on that device.
    """

    rank: int | None = None
    recipe: str
    format: ModelFormat
    can_be_done: bool
    gain_low: float | None = None
    gain_high: float | None = None
    size_ratio: float | None = None
    reason: str
    sources: tuple[str, ...] = ()
    basis: Literal["prior"] = "prior"


class Recommendations(WireModel):
    """All of them, the best first."""

    model: str
    device_class: str
    kind: str
    kind_summary: str
    kind_reason: str
    channel_grid_float: int
    channel_grid_int8: int
    recommendations: tuple[Recommendation, ...]


@dataclass(frozen=True)
class Subject:
    """What is to be compressed.

    Args:
        found: Its float file, or its export.
        is_task: Whether its network and its data are at hand.
    """

    found: Inspection
    is_task: bool


def recommend(
    subject: Subject, recipes: Iterable[Recipe], device: DeviceKind, device_class: str
) -> Recommendations:
    """Rank all recipes in all of their formats."""
    rows = [
        _judge(subject, recipe, model_format, device.kind)
        for recipe in recipes
        for model_format in recipe.file_passes
    ]
    rows.sort(key=lambda row: _order(row, subject.found))
    ranked = [
        row.model_copy(update={"rank": place if row.can_be_done else None})
        for place, row in enumerate(rows, 1)
    ]
    return Recommendations(
        model=subject.found.file,
        device_class=device_class,
        kind=device.kind.name,
        kind_summary=device.kind.summary,
        kind_reason=device.reason,
        channel_grid_float=device.kind.grid[0],
        channel_grid_int8=device.kind.grid[1],
        recommendations=tuple(ranked),
    )


def _judge(
    subject: Subject, recipe: Recipe, model_format: ModelFormat, kind: Kind
) -> Recommendation:
    obstacle = _find_obstacle(subject, recipe, model_format)
    if obstacle:
        return Recommendation(
            recipe=recipe.name, format=model_format, can_be_done=False, reason=obstacle
        )
    gain = Gain(1.0, 1.0, False, 1.0, (), ())
    for spec in recipe.network_passes:
        gain = gain.then(network_gain(spec))
    for file_spec in recipe.file_passes[model_format]:
        gain = gain.then(file_gain(subject.found, file_spec, model_format, kind))
    is_base = not gain.reasons
    reasons = gain.reasons or ("the float model: what the others are compared with",)
    needs = frozenset[Need]().union(*(spec.needs for spec in recipe.file_passes[model_format]))
    if not subject.is_task and not is_base:
        reasons += (list_needs(needs),)
    return Recommendation(
        recipe=recipe.name,
        format=model_format,
        can_be_done=True,
        gain_low=round(gain.low, 2) if gain.is_faster or is_base else None,
        gain_high=round(gain.high, 2) if gain.is_faster or is_base else None,
        size_ratio=round(gain.size_ratio, 3),
        reason="; ".join(dict.fromkeys(reasons)),
        sources=tuple(dict.fromkeys(gain.sources)),
    )


def _find_obstacle(subject: Subject, recipe: Recipe, model_format: ModelFormat) -> str:
    if not subject.is_task:
        if any(not isinstance(spec, Train) for spec in recipe.network_passes):
            return "needs the PyTorch network and its training data: write a task file"
        if model_format is not subject.found.format:
            return f"the file is {subject.found.format.value}; a task file can be exported to both"
    for spec in recipe.file_passes[model_format]:
        reason = "" if subject.is_task else _file_obstacle(subject.found, spec)
        if reason or (reason := _task_obstacle(subject, spec, model_format)):
            return f"{spec.pass_name}: {reason}"
    return ""


def _file_obstacle(found: Inspection, spec: FileSpec) -> str:
    has_convolutions = getattr(spec, "has_convolutions", False)
    return explain_obstacle(type(spec), found, reaches_convolutions=has_convolutions)


def _task_obstacle(subject: Subject, spec: FileSpec, model_format: ModelFormat) -> str:
    """The task was looked at through one format; only what holds for both is judged."""
    technique = technique_of(spec)
    is_dense_only = technique is not None and (model_format, technique) in DENSE_ONLY
    if is_dense_only and not any(row.kind is LayerKind.DENSE for row in subject.found.layers):
        return "no dense layer with constant float weights"
    return ""


def is_small(found: Inspection) -> bool:
    """Whether a net is so small that a prior's low end is to be expected."""
    macs = found.totals.macs.value
    return macs is not None and macs < SMALL_MACS


def _order(row: Recommendation, found: Inspection) -> tuple[int, float, float]:
    size = row.size_ratio if row.size_ratio is not None else 1.0
    if not row.can_be_done:
        return 2, 0.0, size
    if row.gain_low is None or row.gain_high is None:
        return 1, 0.0, size
    expected = row.gain_low if is_small(found) else math.sqrt(row.gain_low * row.gain_high)
    return (0 if expected >= 1.0 else 1), -expected, size
