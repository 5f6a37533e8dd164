"""What can be done with a file: each pass, whether it can be applied, and why or why not. Pure.

Rules:
    1. What a pass needs stands in its spec; what follows from the file stands in OBSTACLES. The
       first obstacle that is found is the reason.
    2. An applicable pass says what it needs, because that is what people must bring.
    3. This is judged from the file: the pass itself may still find something it cannot do, and says
       so when it runs.
"""

from __future__ import annotations

from collections.abc import Callable

from trimtab_compressor.inspection.description import Inspection, LayerDescription, PassAdvice
from trimtab_compressor.inspection.graph import Arithmetic, LayerKind
from trimtab_compressor.specs.base import FileSpec, Need, NetworkSpec, Spec
from trimtab_compressor.specs.table import SPECS
from trimtab_protocol.manifest import ModelFormat

DENSE_ONLY_ONNX = frozenset({"quantize_dynamic", "quantize_weights"})
"""Passes that leave an ONNX file's convolutions as they are."""

FLOAT_STORED = frozenset({"float32", "float64"})

Obstacle = Callable[[Inspection], str]
"""The reason why a pass cannot be applied, or ""."""


def advise(found: Inspection) -> tuple[PassAdvice, ...]:
    """One row per pass, the applicable ones first."""
    rows = [_advise(spec, found) for spec in SPECS.values()]
    return tuple(sorted(rows, key=lambda row: not row.is_applicable))


def explain_obstacle(
    spec: type[Spec], found: Inspection, *, reaches_convolutions: bool = False
) -> str:
    """Why a pass over a file cannot be applied to this one; "" if it can.

    Args:
        spec: Of the pass.
        found: The file.
        reaches_convolutions: Whether its parameters extend it to ONNX convolutions.
    """
    if issubclass(spec, FileSpec) and found.format not in spec.formats:
        known = " and ".join(sorted(row.value for row in spec.formats))
        return f"exists for {known} only"
    for find in (_foreign, *OBSTACLES.get(spec.pass_name, ())):
        if find is _has_no_dense_layers and reaches_convolutions:
            continue
        if reason := find(found):
            return reason
    return ""


def list_needs(needs: frozenset[Need]) -> str:
    """What a person must bring, as a sentence."""
    names = sorted(need.value for need in needs if need is not Need.NETWORK)
    return f"needs {', '.join(names)}" if names else "needs no data"


def quantizable_layers(found: Inspection) -> tuple[LayerDescription, ...]:
    """Layers with float weights of their own."""
    return tuple(row for row in found.layers if row.dtype in FLOAT_STORED and row.weight_shape)


def _advise(spec: type[Spec], found: Inspection) -> PassAdvice:
    if issubclass(spec, NetworkSpec) or Need.NETWORK in spec.needs:
        reason = "works on the PyTorch network, not on its file; write a task file"
        return PassAdvice(pass_name=spec.pass_name, is_applicable=False, reason=reason)
    obstacle = explain_obstacle(spec, found)
    if obstacle:
        return PassAdvice(pass_name=spec.pass_name, is_applicable=False, reason=obstacle)
    reason = f"{list_needs(spec.needs)}; {_count_reached(spec.pass_name, found)}"
    return PassAdvice(pass_name=spec.pass_name, is_applicable=True, reason=reason)


def _count_reached(pass_name: str, found: Inspection) -> str:
    rows = quantizable_layers(found)
    if found.format is ModelFormat.ONNX and pass_name in DENSE_ONLY_ONNX:
        count = sum(row.kind is LayerKind.DENSE for row in rows)
        return f"{len(rows)} layers have float weights, {count} of them dense; the others stay"
    return f"{len(rows)} layers have float weights"


def _foreign(found: Inspection) -> str:
    if found.foreign_operators:
        return f"custom operators: {', '.join(found.foreign_operators)}"
    if found.runs_here is not None and not found.runs_here.loads:
        return "the runtime here does not load the file, so that no result could be checked"
    return ""


def _is_quantized(found: Inspection) -> str:
    done = {
        arithmetic: share
        for arithmetic, share in found.arithmetic.items()
        if arithmetic not in (Arithmetic.FLOAT32, Arithmetic.OTHER)
    }
    if not done:
        return "" if quantizable_layers(found) else "no layer has constant float weights"
    kinds = ", ".join(f"{share.layers} layers {kind.value}" for kind, share in done.items())
    return f"already done: {kinds}; start from the float model"


def _has_half_weights(found: Inspection) -> str:
    """Constants that are converted while the model runs are no constants to the TFLite quantizer."""
    has_halves = Arithmetic.FLOAT16_WEIGHTS in found.arithmetic
    if found.format is ModelFormat.TFLITE and has_halves:
        return "the weights are float16, which the TFLite quantizer cannot read; start from float32"
    return ""


def _has_no_dense_layers(found: Inspection) -> str:
    kinds = {row.kind for row in quantizable_layers(found)}
    if found.format is ModelFormat.ONNX and LayerKind.DENSE not in kinds:
        return "no dense layer with constant float weights; convolutions are left in float by it"
    return ""


_FLOAT_WEIGHTS = (_is_quantized, _has_half_weights)

OBSTACLES: dict[str, tuple[Obstacle, ...]] = {
    "equalize": _FLOAT_WEIGHTS,
    "correct_bias": _FLOAT_WEIGHTS,
    "round_weights": _FLOAT_WEIGHTS,
    "quantize_dynamic": (*_FLOAT_WEIGHTS, _has_no_dense_layers),
    "quantize_static": _FLOAT_WEIGHTS,
    "quantize_weights": (*_FLOAT_WEIGHTS, _has_no_dense_layers),
    "quantize_float16": _FLOAT_WEIGHTS,
    "quantize_verified": _FLOAT_WEIGHTS,
}
"""By pass name, in the order in which they are looked for."""
