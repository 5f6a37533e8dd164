"""From a graph to its description. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from trimtab_compressor.inspection.description import (
    ArithmeticShare,
    Inspection,
    IoDescription,
    LayerDescription,
    OperatorCount,
    StoredTotals,
    Totals,
)
from trimtab_compressor.inspection.graph import (
    ELEMENT_BITS,
    Arithmetic,
    GraphOperator,
    GraphTensor,
    Layer,
    ModelGraph,
    takers_of,
)
from trimtab_compressor.inspection.peak import activations_peak
from trimtab_protocol.manifest import ModelFormat
from trimtab_protocol.reading import Reading

KNOWN_DOMAINS = frozenset({"", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
"""ONNX Runtime runs the operators of these on a CPU; of others it knows nothing."""

_LEARNED = frozenset(
    {"float64", "float32", "float16", "bfloat16", "int8", "uint8", "int4", "uint4"}
)
_GRID = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


def describe(graph: ModelGraph, *, file: str, size_bytes: int, sha256: str) -> Inspection:
    """All that follows from the graph alone."""
    learned = _learned_constants(graph)
    return Inspection(
        file=file,
        format=graph.format,
        versions=dict(graph.versions),
        producer=graph.producer,
        size_bytes=size_bytes,
        sha256=sha256,
        inputs=tuple(IoDescription(**vars(row)) for row in graph.inputs),
        outputs=tuple(IoDescription(**vars(row)) for row in graph.outputs),
        operators=_count_operators(graph),
        foreign_operators=foreign_operators(graph),
        layers=tuple(describe_layer(layer) for layer in graph.layers),
        totals=Totals(
            parameters=sum(row.elements or 0 for row in learned),
            parameter_bytes=sum(row.size_bytes or 0 for row in learned),
            macs=total_macs(graph),
            activations_peak_bytes=activations_peak(graph),
        ),
        stored=_sum_stored(learned),
        arithmetic=share_arithmetic(graph),
        notes=graph.notes,
    )


def describe_layer(layer: Layer) -> LayerDescription:
    """One layer; its weight counts with its bias."""
    parts = [row for row in (layer.weight, layer.bias) if row is not None]
    return LayerDescription(
        name=layer.name,
        weight=layer.weight.name if layer.weight is not None else "",
        operator=layer.operator.kind,
        kind=layer.kind,
        weight_shape=(layer.weight.shape or ()) if layer.weight is not None else (),
        dtype=layer.weight.dtype if layer.weight is not None else "",
        scales=len(layer.affine.scale) if layer.affine is not None else 0,
        parameters=count_parameters(layer),
        weight_bytes=sum(row.size_bytes or 0 for row in parts),
        macs=layer.macs,
        arithmetic=layer.arithmetic,
    )


def count_parameters(layer: Layer) -> int:
    """Weights and biases; two packed values of four bits are two."""
    weight = layer.weight.elements or 0 if layer.weight is not None else 0
    attributes = layer.operator.attributes
    if layer.operator.kind == "MatMulNBits":
        weight = attributes.get("K", 0) * attributes.get("N", 0)
    return weight + (layer.bias.elements or 0 if layer.bias is not None else 0)


def total_macs(graph: ModelGraph) -> Reading:
    """Of one run, or the reason why it cannot be counted."""
    open_layers = [row for row in graph.layers if row.macs is None]
    if any(row.kind in _WORKING for row in graph.inner_operators):
        return Reading(absent="the work inside If, Loop or other inner graphs cannot be counted")
    if not open_layers:
        return Reading(value=sum(row.macs or 0 for row in graph.layers))
    free = [
        f"{row.name} ({', '.join(str(axis) for axis in free_axes(row.shape))})"
        for row in graph.inputs
        if free_axes(row.shape)
    ]
    if free:
        remedy = "; give --shape" if graph.format is ModelFormat.ONNX else ""
        return Reading(absent=f"inputs leave axes free: {'; '.join(free)}{remedy}")
    return Reading(absent=f"the shapes of {len(open_layers)} layers are known only while it runs")


_WORKING = frozenset({"Conv", "MatMul", "Gemm", "LSTM", "GRU", "CONV_2D", "FULLY_CONNECTED"})


def free_axes(shape: Iterable[int | str | None]) -> list[int]:
    """The axes after the first that have no size."""
    return [axis for axis, size in enumerate(shape) if axis and not isinstance(size, int)]


def share_arithmetic(graph: ModelGraph) -> dict[Arithmetic, ArithmeticShare]:
    """What part of layers, work and parameters is computed in which way; most work first."""
    macs = total_macs(graph).value
    parameters = sum(count_parameters(row) for row in graph.layers)
    groups: dict[Arithmetic, list[Layer]] = {}
    for layer in graph.layers:
        groups.setdefault(layer.arithmetic, []).append(layer)
    found = {
        arithmetic: ArithmeticShare(
            layers=len(rows),
            macs_ratio=sum(row.macs or 0 for row in rows) / macs if macs else None,
            parameters_ratio=sum(count_parameters(row) for row in rows) / max(parameters, 1),
        )
        for arithmetic, rows in groups.items()
    }
    return dict(sorted(found.items(), key=lambda row: -(row[1].macs_ratio or 0)))


def foreign_operators(graph: ModelGraph) -> tuple[str, ...]:
    """Operators that are neither the format's nor ONNX Runtime's own."""
    found = {
        f"{row.domain}::{row.kind}"
        for row in (*graph.operators, *graph.inner_operators)
        if row.domain not in KNOWN_DOMAINS
    }
    return tuple(sorted(found))


def _count_operators(graph: ModelGraph) -> tuple[OperatorCount, ...]:
    rows: list[OperatorCount] = []
    for operators, is_inner in ((graph.operators, False), (graph.inner_operators, True)):
        counts = Counter((row.kind, row.domain) for row in operators if row.kind != "Constant")
        rows += [
            OperatorCount(operator=kind, domain=domain, count=count, is_inner=is_inner)
            for (kind, domain), count in sorted(counts.items(), key=lambda row: (-row[1], row[0]))
        ]
    return tuple(rows)


def _learned_constants(graph: ModelGraph) -> list[GraphTensor]:
    """Constants that were learned: floats and integers of weights, and integer biases of layers.

    Scales and zero points belong to the grid; integers of 32 and 64 bits are shapes and axes,
    unless a layer adds them.
    """
    biases = {row.bias.name for row in graph.layers if row.bias is not None}
    weights = {row.weight.name for row in graph.layers if row.weight is not None}
    takers = takers_of(graph.operators)
    return [
        row
        for row in graph.tensors.values()
        if row.is_constant
        and (
            row.name in biases | weights
            or (row.dtype in _LEARNED and not _is_grid(row.name, takers.get(row.name, [])))
        )
    ]


def _is_grid(name: str, takers: list[GraphOperator]) -> bool:
    """Whether a constant is a scale or a zero point, or used by nobody."""
    return all(_is_grid_of(name, row) for row in takers)


def _is_grid_of(name: str, taker: GraphOperator) -> bool:
    if taker.kind in _GRID:
        return name != taker.inputs[0]
    if taker.kind.startswith(
        ("QLinear", "QGemm", "MatMulInteger", "ConvInteger", "DynamicQuantize")
    ):
        return True
    return taker.kind == "Mul" and name.endswith("_scale")


def _sum_stored(learned: list[GraphTensor]) -> dict[str, StoredTotals]:
    groups: dict[str, list[GraphTensor]] = {}
    for row in learned:
        groups.setdefault(row.dtype, []).append(row)
    totals = {
        dtype: StoredTotals(
            tensors=len(rows),
            elements=sum(row.elements or 0 for row in rows),
            size_bytes=sum(row.size_bytes or 0 for row in rows),
        )
        for dtype, rows in groups.items()
        if dtype in ELEMENT_BITS
    }
    return dict(sorted(totals.items(), key=lambda row: -row[1].size_bytes))
