"""Rank recipes for one model on one kind of device, by priors. Pure.

Rules:
    1. A technique speeds up the layers that it reaches; the rest stays as it is (Amdahl, 1967):
       gain = 1 / ((1 - reach) + reach / prior). Reach is a share of the MACs, or of the parameters
       where MACs are not known.
    2. Gains of passes multiply: first less work, then faster work.
    3. Small nets get the low end of a prior: what Q/DQ and launching operators cost does not
       shrink with the net.
    4. What is expected to be faster comes first, then what is only smaller, then what cannot be
       done, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from trimtab_compressor.inspection.advice import explain_obstacle, list_needs
from trimtab_compressor.inspection.description import Inspection, LayerDescription
from trimtab_compressor.inspection.graph import LayerKind
from trimtab_compressor.priors import (
    PRUNED_HALF,
    SIZE_RATIOS,
    DeviceKind,
    Kind,
    Prior,
    Technique,
    find_prior,
)
from trimtab_compressor.recipes import Recipe
from trimtab_compressor.specs.base import FileSpec, Need, Spec
from trimtab_compressor.specs.distillation import Distill
from trimtab_compressor.specs.pruning import PruneChannels, PruneLayers, PruneWeights
from trimtab_compressor.specs.quantization import (
    QuantizeDynamic,
    QuantizeFloat16,
    QuantizeStatic,
    QuantizeWeights,
)
from trimtab_compressor.specs.training import Train
from trimtab_protocol.base import WireModel
from trimtab_protocol.manifest import ModelFormat

SMALL_MACS = 5_000_000
"""DS-CNN (2.7 million MACs) gained 1.16 where ResNet-18 gained 2.34 (priors.HERE)."""


def _static_technique(spec: Spec) -> Technique:
    if getattr(spec, "activation_bits", 8) == 16:
        return Technique.STATIC_16X8
    if getattr(spec, "is_weight_unsigned", False):
        return Technique.STATIC_U8U8
    is_symmetric = getattr(spec, "is_symmetric", False)
    return Technique.STATIC_S8S8 if is_symmetric else Technique.STATIC_U8S8


TECHNIQUES: dict[str, Callable[[Spec], Technique]] = {
    QuantizeDynamic.pass_name: lambda spec: (
        Technique.DYNAMIC_CONV if getattr(spec, "has_convolutions", False) else Technique.DYNAMIC
    ),
    QuantizeStatic.pass_name: _static_technique,
    QuantizeWeights.pass_name: lambda _: Technique.WEIGHT_ONLY,
    QuantizeFloat16.pass_name: lambda _: Technique.FLOAT16,
}
"""By the name of a pass over a file; a pass that is not here leaves speed and size alone."""

DENSE_ONLY = frozenset(
    {(ModelFormat.ONNX, Technique.DYNAMIC), (ModelFormat.ONNX, Technique.WEIGHT_ONLY)}
)


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


@dataclass(frozen=True)
class _Gain:
    low: float
    high: float
    is_faster: bool
    size_ratio: float
    reasons: tuple[str, ...]
    sources: tuple[str, ...]

    def then(self, other: _Gain) -> _Gain:
        return _Gain(
            self.low * other.low,
            self.high * other.high,
            self.is_faster or other.is_faster,
            self.size_ratio * other.size_ratio,
            self.reasons + other.reasons,
            self.sources + other.sources,
        )


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
    gain = _Gain(1.0, 1.0, False, 1.0, (), ())
    for spec in recipe.network_passes:
        gain = gain.then(_network_gain(spec))
    for file_spec in recipe.file_passes[model_format]:
        gain = gain.then(_file_gain(subject.found, file_spec, model_format, kind))
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
    technique = _technique_of(spec)
    is_dense_only = technique is not None and (model_format, technique) in DENSE_ONLY
    if is_dense_only and not any(row.kind is LayerKind.DENSE for row in subject.found.layers):
        return "no dense layer with constant float weights"
    return ""


def _technique_of(spec: Spec) -> Technique | None:
    find = TECHNIQUES.get(spec.pass_name)
    return find(spec) if find is not None else None


def _network_gain(spec: Spec) -> _Gain:
    """Removing channels leaves less work; a student of another width does too."""
    ratio = getattr(spec, "ratio", None)
    width = getattr(spec, "width", None)
    if isinstance(spec, PruneChannels) and isinstance(ratio, float):
        return _less_work(1.0 - ratio)
    if isinstance(spec, Distill) and isinstance(width, float) and width < 1.0:
        return _less_work(width)
    if isinstance(spec, PruneWeights):
        return _Gain(1.0, 1.0, False, 1.0, ("zeros are smaller only where it is compressed",), ())
    if isinstance(spec, PruneLayers):
        reason = "whole blocks go; what that saves follows from which ones, so no figure is known"
        return _Gain(1.0, 1.0, False, 1.0, (reason,), ())
    return _Gain(1.0, 1.0, False, 1.0, (), ())


def _less_work(width: float) -> _Gain:
    """At least the channels' share of the work goes; at most what it was for half of them.

    Beyond a half, which is what was measured, no more than the share is added.
    """
    assert PRUNED_HALF.high is not None
    high = PRUNED_HALF.high ** (math.log(width) / math.log(0.5))
    if width < 0.5:
        high = PRUNED_HALF.high * 0.5 / width
    return _Gain(
        low=1.0 / width,
        high=high,
        is_faster=True,
        size_ratio=width**1.5,
        reasons=(f"{width:.0%} of the channels are left, so less is computed",),
        sources=(PRUNED_HALF.source,),
    )


def _file_gain(found: Inspection, spec: FileSpec, model_format: ModelFormat, kind: Kind) -> _Gain:
    technique = _technique_of(spec)
    if technique is None:
        return _Gain(1.0, 1.0, False, 1.0, (), ())
    prior = find_prior(kind, model_format, technique)
    reached = [row for row in found.layers if is_reached(row, model_format, technique)]
    work, parameters = _shares(found, reached)
    ratio, size_source = SIZE_RATIOS[technique]
    if getattr(spec, "bits", 8) == 4:
        ratio /= 2
    reason = prior.reason
    if work < 1.0:
        reason += f" (reaches {work:.0%} of the work, {parameters:.0%} of the parameters)"
    low, high = _reached_gain(prior, work)
    return _Gain(
        low=low,
        high=high,
        is_faster=prior.low is not None,
        size_ratio=1.0 - parameters * (1.0 - ratio),
        reasons=(reason,),
        sources=(prior.source, size_source),
    )


def is_reached(row: LayerDescription, model_format: ModelFormat, technique: Technique) -> bool:
    """Whether a technique changes a layer of this kind."""
    if (model_format, technique) in DENSE_ONLY:
        return row.kind is LayerKind.DENSE
    if technique in (Technique.DYNAMIC, Technique.DYNAMIC_CONV):
        return row.kind in (LayerKind.DENSE, LayerKind.CONV)
    return row.kind not in (LayerKind.RECURRENT, LayerKind.EMBEDDING)


def _shares(found: Inspection, reached: list[LayerDescription]) -> tuple[float, float]:
    """Of work and of parameters; of the latter twice where work is not known."""
    parameters = sum(row.parameters for row in reached) / max(
        1, sum(row.parameters for row in found.layers)
    )
    macs = found.totals.macs.value
    return (sum(row.macs or 0 for row in reached) / macs if macs else parameters), parameters


def _reached_gain(prior: Prior, reach: float) -> tuple[float, float]:
    if prior.low is None or prior.high is None:
        return 1.0, 1.0
    low, high = (1.0 / ((1.0 - reach) + reach / gain) for gain in (prior.low, prior.high))
    return low, high


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
