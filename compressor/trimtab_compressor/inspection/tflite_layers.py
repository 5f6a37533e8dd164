"""Find the layers of a TFLite graph: their weights, their work, and what they compute with.

Layouts (schema.fbs, and the kernels in tflite/kernels): CONV_2D (out, h, w, in / groups),
DEPTHWISE_CONV_2D (1, h, w, out), FULLY_CONNECTED (out, in), TRANSPOSE_CONV (out, h, w, in) as its
second input, CONV_3D (d, h, w, in, out).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from trimtab_compressor.inspection.graph import (
    Arithmetic,
    GraphOperator,
    GraphTensor,
    Layer,
    LayerKind,
    ModelGraph,
    makers_of,
)

_SEEN_THROUGH = frozenset({"DEQUANTIZE", "TRANSPOSE", "RESHAPE"})
_BYTE, _NIBBLE = frozenset({"int8", "uint8"}), frozenset({"int4", "uint4", "int2"})
LSTM_WEIGHTS = range(1, 9)
"""UNIDIRECTIONAL_SEQUENCE_LSTM: four matrices over the input, four over the state."""


@dataclass(frozen=True)
class _Rule:
    """Where an operator keeps what, and how its work follows from the shapes."""

    kind: LayerKind
    taken: int
    weight: int
    bias: int
    macs: Callable[[tuple[int, ...], tuple[int, ...], tuple[int, ...]], int]


def _per_output(out: tuple[int, ...], weight: tuple[int, ...], taken: tuple[int, ...]) -> int:
    """(n, h, w, out) elements, each of h * w * in products."""
    del taken
    return math.prod(out) * math.prod(weight[1:])


def _per_output_depthwise(
    out: tuple[int, ...], weight: tuple[int, ...], taken: tuple[int, ...]
) -> int:
    del taken
    return math.prod(out) * weight[1] * weight[2]


def _per_output_3d(out: tuple[int, ...], weight: tuple[int, ...], taken: tuple[int, ...]) -> int:
    del taken
    return math.prod(out) * math.prod(weight[:4])


def _per_input(out: tuple[int, ...], weight: tuple[int, ...], taken: tuple[int, ...]) -> int:
    """Each element that is taken goes to out * h * w products."""
    del out
    return math.prod(taken) * math.prod(weight[:3])


def _inner_product(out: tuple[int, ...], weight: tuple[int, ...], taken: tuple[int, ...]) -> int:
    """Both matrices share the axis that is summed over."""
    del weight
    return math.prod(out) * taken[-1]


def _no_work(out: tuple[int, ...], weight: tuple[int, ...], taken: tuple[int, ...]) -> int:
    del out, weight, taken
    return 0


_RULES = {
    "CONV_2D": _Rule(LayerKind.CONV, 0, 1, 2, _per_output),
    "CONV_3D": _Rule(LayerKind.CONV, 0, 1, 2, _per_output_3d),
    "DEPTHWISE_CONV_2D": _Rule(LayerKind.DEPTHWISE_CONV, 0, 1, 2, _per_output_depthwise),
    "TRANSPOSE_CONV": _Rule(LayerKind.TRANSPOSED_CONV, 2, 1, 3, _per_input),
    "FULLY_CONNECTED": _Rule(LayerKind.DENSE, 0, 1, 2, _per_output),
    "BATCH_MATMUL": _Rule(LayerKind.MATMUL, 0, 1, 9, _inner_product),
    "EMBEDDING_LOOKUP": _Rule(LayerKind.EMBEDDING, 0, 1, 9, _no_work),
    "GATHER": _Rule(LayerKind.EMBEDDING, 1, 0, 9, _no_work),
}


def find_layers(graph: ModelGraph) -> tuple[Layer, ...]:
    """All layers, in the order of the file."""
    makers = makers_of(graph.operators)
    found = (_find_layer(graph, makers, operator) for operator in graph.operators)
    return tuple(layer for layer in found if layer is not None)


def _find_layer(
    graph: ModelGraph, makers: dict[str, GraphOperator], operator: GraphOperator
) -> Layer | None:
    if operator.kind == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        return _lstm(graph, operator)
    rule = _RULES.get(operator.kind)
    if rule is None:
        return None
    weight, way = _constant(graph, makers, operator.input(rule.weight))
    is_table = weight is not None and len(weight.shape or ()) == 2 and weight.dtype != "int32"
    if rule.kind is LayerKind.EMBEDDING and not is_table:
        return None
    kind = rule.kind
    if kind is LayerKind.MATMUL and weight is not None:
        kind = LayerKind.DENSE
    return Layer(
        operator=operator,
        kind=kind,
        weight=weight,
        bias=_constant(graph, makers, operator.input(rule.bias))[0],
        macs=_count_macs(graph, operator, rule),
        arithmetic=_arithmetic(graph, operator.input(rule.taken), weight, way),
        affine=weight.affine if weight is not None else None,
        output=operator.outputs[0],
    )


def _count_macs(graph: ModelGraph, operator: GraphOperator, rule: _Rule) -> int | None:
    names = (operator.outputs[0], operator.input(rule.weight), operator.input(rule.taken))
    shapes = [graph.tensors[name].shape for name in names]
    out, weight, taken = shapes
    return None if out is None or weight is None or taken is None else rule.macs(out, weight, taken)


def _lstm(graph: ModelGraph, operator: GraphOperator) -> Layer:
    matrices = [graph.tensors[operator.input(row)] for row in LSTM_WEIGHTS if operator.input(row)]
    taken = graph.tensors[operator.input(0)].shape
    elements = [row.elements for row in matrices]
    macs = None
    if taken is not None and all(count is not None for count in elements):
        macs = taken[0] * taken[1] * sum(count for count in elements if count is not None)
    first = matrices[0]
    return Layer(
        operator=operator,
        kind=LayerKind.RECURRENT,
        weight=first if first.is_constant else None,
        bias=None,
        macs=macs,
        arithmetic=_arithmetic(graph, operator.input(0), first, ()),
        affine=first.affine,
        output=operator.outputs[0],
    )


def _constant(
    graph: ModelGraph, makers: dict[str, GraphOperator], name: str
) -> tuple[GraphTensor | None, tuple[str, ...]]:
    """The constant behind a name, and the kinds of the operators on the way to it."""
    way = []
    while name in makers and makers[name].kind in _SEEN_THROUGH:
        way.append(makers[name].kind)
        name = makers[name].inputs[0]
    tensor = graph.tensors.get(name)
    return (tensor, tuple(way)) if tensor is not None and tensor.is_constant else (None, ())


def _arithmetic(
    graph: ModelGraph, taken_name: str, weight: GraphTensor | None, way: tuple[str, ...]
) -> Arithmetic:
    taken = graph.tensors[taken_name].dtype if taken_name else ""
    stored = weight.dtype if weight is not None else taken
    if taken in _BYTE:
        return Arithmetic.INT8
    if taken == "int16":
        return Arithmetic.INT16_INT8
    if stored in _BYTE | _NIBBLE:
        return _integer_weights(stored, is_dequantized="DEQUANTIZE" in way)
    if stored == "float16":
        return Arithmetic.FLOAT16 if taken == "float16" else Arithmetic.FLOAT16_WEIGHTS
    return Arithmetic.FLOAT32 if stored == "float32" else Arithmetic.OTHER


def _integer_weights(stored: str, *, is_dequantized: bool) -> Arithmetic:
    """Float activations, integer weights: what a kernel of both does, or only a smaller file."""
    if stored in _BYTE:
        return Arithmetic.WEIGHT_ONLY_INT8 if is_dequantized else Arithmetic.DYNAMIC_INT8
    return Arithmetic.WEIGHT_ONLY_INT4 if is_dequantized else Arithmetic.DYNAMIC_INT4
