"""What a pass is expected to gain on a kind of device, by priors. Pure.

A technique speeds up the layers that it reaches; the rest stays as it is (Amdahl, 1967):
gain = 1 / ((1 - reach) + reach / prior). Reach is a share of the MACs, or of the parameters where
MACs are not known. Gains of passes multiply: first less work, then faster work.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from trimtab_compressor.device_kinds import Kind
from trimtab_compressor.inspection.description import Inspection, LayerDescription
from trimtab_compressor.inspection.graph import LayerKind
from trimtab_compressor.priors import (
    PRUNED_HALF,
    SIZE_RATIOS,
    Prior,
    Technique,
    find_prior,
)
from trimtab_compressor.specs.base import FileSpec, Spec
from trimtab_compressor.specs.distillation import Distill
from trimtab_compressor.specs.pruning import PruneChannels, PruneLayers, PruneWeights
from trimtab_compressor.specs.quantization import (
    QuantizeDynamic,
    QuantizeFloat16,
    QuantizeStatic,
    QuantizeVerified,
    QuantizeWeights,
)
from trimtab_protocol.manifest import ModelFormat


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
    QuantizeVerified.pass_name: _static_technique,
    QuantizeWeights.pass_name: lambda _: Technique.WEIGHT_ONLY,
    QuantizeFloat16.pass_name: lambda _: Technique.FLOAT16,
}
"""By the name of a pass over a file; a pass that is not here leaves speed and size alone."""

DENSE_ONLY = frozenset(
    {(ModelFormat.ONNX, Technique.DYNAMIC), (ModelFormat.ONNX, Technique.WEIGHT_ONLY)}
)


@dataclass(frozen=True)
class Gain:
    """An expected gain, with why and from where.

    Args:
        low: Ratio of latencies, before over after, at least.
        high: At most.
        is_faster: Whether a gain of speed is expected at all, or only one of size.
        size_ratio: Bytes after over before.
        reasons: One per pass that changes something.
        sources: Of the figures.
    """

    low: float
    high: float
    is_faster: bool
    size_ratio: float
    reasons: tuple[str, ...]
    sources: tuple[str, ...]

    def then(self, other: Gain) -> Gain:
        """This, and another on top of it."""
        return Gain(
            self.low * other.low,
            self.high * other.high,
            self.is_faster or other.is_faster,
            self.size_ratio * other.size_ratio,
            self.reasons + other.reasons,
            self.sources + other.sources,
        )


def technique_of(spec: Spec) -> Technique | None:
    """What a pass over a file does to the arithmetic; None if nothing."""
    find = TECHNIQUES.get(spec.pass_name)
    return find(spec) if find is not None else None


def network_gain(spec: Spec) -> Gain:
    """Removing channels leaves less work; a student of another width does too."""
    ratio = getattr(spec, "ratio", None)
    width = getattr(spec, "width", None)
    if isinstance(spec, PruneChannels) and isinstance(ratio, float):
        return _less_work(1.0 - ratio)
    if isinstance(spec, Distill) and isinstance(width, float) and width < 1.0:
        return _less_work(width)
    if isinstance(spec, PruneWeights):
        return Gain(1.0, 1.0, False, 1.0, ("zeros are smaller only where it is compressed",), ())
    if isinstance(spec, PruneLayers):
        reason = "whole blocks go; what that saves follows from which ones, so no figure is known"
        return Gain(1.0, 1.0, False, 1.0, (reason,), ())
    return Gain(1.0, 1.0, False, 1.0, (), ())


def _less_work(width: float) -> Gain:
    """At least the channels' share of the work goes; at most what it was for half of them.

    Beyond a half, which is what was measured, no more than the share is added.
    """
    assert PRUNED_HALF.high is not None
    high = PRUNED_HALF.high ** (math.log(width) / math.log(0.5))
    if width < 0.5:
        high = PRUNED_HALF.high * 0.5 / width
    return Gain(
        low=1.0 / width,
        high=high,
        is_faster=True,
        size_ratio=width**1.5,
        reasons=(f"{width:.0%} of the channels are left, so less is computed",),
        sources=(PRUNED_HALF.source,),
    )


def file_gain(found: Inspection, spec: FileSpec, model_format: ModelFormat, kind: Kind) -> Gain:
    """Of a pass over a file: a prior, as far as it reaches into this model."""
    technique = technique_of(spec)
    if technique is None:
        return Gain(1.0, 1.0, False, 1.0, (), ())
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
    return Gain(
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
