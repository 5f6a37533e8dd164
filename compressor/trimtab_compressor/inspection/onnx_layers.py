"""Find the layers of an ONNX graph: their weights, their work, and what they compute with.

A weight may stand behind DequantizeLinear, Cast, Transpose and the like; what is described is the
constant as it is stored. Whether a layer between Q/DQ pairs is computed with integers follows the
rules by which ONNX Runtime fuses it (onnxruntime/core/optimizer/qdq_transformer): both inputs come
out of DequantizeLinear, and, for convolutions, the output goes into QuantizeLinear, perhaps after
an activation function that fits into the range.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trimtab_compressor.inspection.graph import (
    Affine,
    Arithmetic,
    GraphOperator,
    GraphTensor,
    Layer,
    LayerKind,
    ModelGraph,
    makers_of,
    takers_of,
)

_CONV_WEIGHT = {"Conv": 1, "FusedConv": 1, "NhwcFusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
_PRODUCT_WEIGHT = {
    "MatMul": 1,
    "FusedMatMul": 1,
    "Gemm": 1,
    "FusedGemm": 1,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
    "QLinearMatMul": 3,
    "QGemm": 3,
}
_RECURRENT = frozenset({"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"})
_BIAS = {
    **dict.fromkeys(
        ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "ConvTranspose"), 2
    ),
    "QLinearConv": 8,
    "QGemm": 6,
    "DynamicQuantizeMatMul": 4,
}
_STATIC_INTEGER = frozenset({"QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat"})
_DYNAMIC_INTEGER = frozenset(
    {"ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
)
_SEEN_THROUGH = frozenset(
    {"DequantizeLinear", "QuantizeLinear", "Cast", "Transpose", "Identity", "Reshape", "Squeeze"}
)
_FUSED_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu"})
_BYTE = frozenset({"int8", "uint8"})
_WORD = frozenset({"int16", "uint16"})
_NIBBLE = frozenset({"int4", "uint4"})


@dataclass(frozen=True)
class _Graph:
    """The graph with its edges."""

    graph: ModelGraph
    makers: dict[str, GraphOperator]
    takers: dict[str, list[GraphOperator]]

    def shape(self, name: str) -> tuple[int, ...] | None:
        tensor = self.graph.tensors.get(name)
        return tensor.shape if tensor is not None else None

    def dtype(self, name: str) -> str:
        tensor = self.graph.tensors.get(name)
        return tensor.dtype if tensor is not None else ""

    def constant(self, name: str) -> tuple[GraphTensor | None, tuple[GraphOperator, ...]]:
        """The constant behind a name, and the operators on the way to it."""
        way = []
        while name in self.makers and self.makers[name].kind in _SEEN_THROUGH:
            way.append(self.makers[name])
            name = way[-1].inputs[0]
        tensor = self.graph.tensors.get(name)
        return (tensor, tuple(way)) if tensor is not None and tensor.is_constant else (None, ())


def find_layers(graph: ModelGraph) -> tuple[Layer, ...]:
    """All layers, in the order of the file."""
    edges = _Graph(graph, makers_of(graph.operators), takers_of(graph.operators))
    found = (_find_layer(edges, operator) for operator in graph.operators)
    return tuple(layer for layer in found if layer is not None)


def _find_layer(edges: _Graph, operator: GraphOperator) -> Layer | None:
    read = _READERS.get(operator.kind)
    return None if read is None else read(edges, operator)


def _conv(edges: _Graph, operator: GraphOperator) -> Layer:
    weight = operator.input(_CONV_WEIGHT[operator.kind])
    shape, out = edges.shape(weight), edges.shape(operator.outputs[0])
    macs = None if shape is None or out is None else math.prod(out) * math.prod(shape[1:])
    groups = operator.attributes.get("group", 1)
    is_depthwise = groups > 1 and shape is not None and shape[1] == 1
    kind = LayerKind.DEPTHWISE_CONV if is_depthwise else LayerKind.CONV
    return _layer(edges, operator, kind, weight, macs)


def _transposed_conv(edges: _Graph, operator: GraphOperator) -> Layer:
    shape, taken = edges.shape(operator.input(1)), edges.shape(operator.input(0))
    macs = None if shape is None or taken is None else math.prod(taken) * math.prod(shape[1:])
    return _layer(edges, operator, LayerKind.TRANSPOSED_CONV, operator.input(1), macs)


def _product(edges: _Graph, operator: GraphOperator) -> Layer:
    weight = operator.input(_PRODUCT_WEIGHT[operator.kind])
    shape, out = edges.shape(weight), edges.shape(operator.outputs[0])
    is_turned = operator.kind in {"Gemm", "FusedGemm", "QGemm", "FusedMatMul"}
    axis = -1 if is_turned and operator.attributes.get("transB", 0) else -2
    macs = None
    if shape is not None and out is not None and len(shape) > 1:
        macs = math.prod(out) * shape[axis]
    is_dense = edges.constant(weight)[0] is not None
    kind = LayerKind.DENSE if is_dense else LayerKind.MATMUL
    return _layer(edges, operator, kind, weight, macs)


def _packed_product(edges: _Graph, operator: GraphOperator) -> Layer:
    """MatMulNBits: (…, K) by a packed (N, K)."""
    out = edges.shape(operator.outputs[0])
    macs = None if out is None else math.prod(out) * operator.attributes.get("K", 0)
    return _layer(edges, operator, LayerKind.DENSE, operator.input(1), macs)


def _recurrent(edges: _Graph, operator: GraphOperator) -> Layer:
    """Every step multiplies by W (d, gates * h, in) and by R (d, gates * h, h)."""
    shapes = [edges.shape(operator.input(position)) for position in (0, 1, 2)]
    macs = None
    if all(shape is not None for shape in shapes):
        taken, w, r = (shape for shape in shapes if shape is not None)
        macs = taken[0] * taken[1] * (math.prod(w) + math.prod(r))
    return _layer(edges, operator, LayerKind.RECURRENT, operator.input(1), macs)


def _embedding(edges: _Graph, operator: GraphOperator) -> Layer | None:
    tensor, _ = edges.constant(operator.input(0))
    is_table = tensor is not None and len(tensor.shape or ()) == 2 and "int64" not in tensor.dtype
    if not is_table:
        return None
    return _layer(edges, operator, LayerKind.EMBEDDING, operator.input(0), 0)


def _layer(
    edges: _Graph, operator: GraphOperator, kind: LayerKind, weight_name: str, macs: int | None
) -> Layer:
    weight, way = edges.constant(weight_name)
    bias, _ = edges.constant(operator.input(_BIAS.get(operator.kind, 99)))
    return Layer(
        operator=operator,
        kind=kind,
        weight=weight,
        bias=bias,
        macs=macs,
        arithmetic=_arithmetic(edges, operator, weight, way),
        affine=_affine(edges, operator, weight, way),
        output=operator.outputs[0],
    )


def _arithmetic(
    edges: _Graph,
    operator: GraphOperator,
    weight: GraphTensor | None,
    way: tuple[GraphOperator, ...],
) -> Arithmetic:
    if operator.kind in _STATIC_INTEGER:
        return Arithmetic.INT8
    if operator.kind in _DYNAMIC_INTEGER:
        return Arithmetic.DYNAMIC_INT8
    if operator.kind == "MatMulNBits":
        is_four = operator.attributes.get("bits", 4) == 4
        return Arithmetic.WEIGHT_ONLY_INT4 if is_four else Arithmetic.WEIGHT_ONLY_INT8
    stored = weight.dtype if weight is not None else edges.dtype(operator.input(1))
    is_dequantized = any(row.kind == "DequantizeLinear" for row in way) or weight is None
    if is_dequantized:
        taken = _dequantized_from(edges, operator.input(0))
        second = stored if weight is not None else _dequantized_from(edges, operator.input(1))
        if second:
            return _between_pairs(edges, operator, second, taken)
    return _float_arithmetic(edges, operator, stored)


def _between_pairs(edges: _Graph, operator: GraphOperator, stored: str, taken: str) -> Arithmetic:
    if stored in _NIBBLE:
        return Arithmetic.WEIGHT_ONLY_INT4
    is_fused = bool(taken) and _is_fused(edges, operator)
    if is_fused:
        return Arithmetic.INT16_INT8 if taken in _WORD else Arithmetic.INT8
    return Arithmetic.WEIGHT_ONLY_INT8 if stored in _BYTE else Arithmetic.OTHER


def _is_fused(edges: _Graph, operator: GraphOperator) -> bool:
    if operator.kind not in {"Conv", "ConvTranspose"}:
        return True
    takers = edges.takers.get(operator.outputs[0], [])
    if len(takers) == 1 and takers[0].kind in _FUSED_ACTIVATIONS:
        takers = edges.takers.get(takers[0].outputs[0], [])
    return bool(takers) and all(row.kind == "QuantizeLinear" for row in takers)


def _float_arithmetic(edges: _Graph, operator: GraphOperator, stored: str) -> Arithmetic:
    if stored == "float16":
        is_half = edges.dtype(operator.input(0)) == "float16"
        return Arithmetic.FLOAT16 if is_half else Arithmetic.FLOAT16_WEIGHTS
    return Arithmetic.FLOAT32 if stored == "float32" else Arithmetic.OTHER


def _dequantized_from(edges: _Graph, name: str) -> str:
    """The integer type that a tensor is dequantized from, "" if it is not."""
    maker = edges.makers.get(name)
    while maker is not None and maker.kind in {"Reshape", "Transpose", "Flatten", "MaxPool"}:
        maker = edges.makers.get(maker.inputs[0])
    if maker is None or maker.kind != "DequantizeLinear":
        return ""
    found = edges.dtype(maker.inputs[0])
    return found if found in _BYTE | _WORD else ""


def _affine(
    edges: _Graph,
    operator: GraphOperator,
    weight: GraphTensor | None,
    way: tuple[GraphOperator, ...],
) -> Affine | None:
    """Scale and zero point from DequantizeLinear, or from the names that ORT's quantizer gives."""
    if weight is None or weight.dtype not in _BYTE | _NIBBLE or operator.kind == "MatMulNBits":
        return None
    for row in way:
        if row.kind == "DequantizeLinear":
            axis = row.attributes.get("axis", 1)
            return _read_affine(edges, row.input(1), row.input(2), axis)
    if operator.kind == "QLinearConv":
        return _read_affine(edges, operator.input(4), operator.input(5), 0)
    if operator.kind in {"QLinearMatMul", "QGemm"}:
        axis = 0 if operator.attributes.get("transB", 0) else 1
        return _read_affine(edges, operator.input(4), operator.input(5), axis)
    stem = weight.name.removesuffix("_quantized")
    axis = 0 if operator.kind == "ConvInteger" else 1
    return _read_affine(edges, f"{stem}_scale", f"{stem}_zero_point", axis)


def _read_affine(edges: _Graph, scale: str, zero_point: str, axis: int) -> Affine | None:
    scales = edges.graph.tensors.get(scale)
    if scales is None or scales.values is None:
        return None
    scale_values = np.atleast_1d(scales.values()).astype(np.float64)
    zeros = edges.graph.tensors.get(zero_point)
    zero_values = np.zeros_like(scale_values)
    if zeros is not None and zeros.values is not None:
        zero_values = np.atleast_1d(zeros.values()).astype(np.float64)
    return Affine(scale_values, zero_values, axis if scale_values.size > 1 else None)


_READERS: dict[str, Callable[[_Graph, GraphOperator], Layer | None]] = {
    **dict.fromkeys(_CONV_WEIGHT, _conv),
    **dict.fromkeys(_PRODUCT_WEIGHT, _product),
    **dict.fromkeys(_RECURRENT, _recurrent),
    "ConvTranspose": _transposed_conv,
    "MatMulNBits": _packed_product,
    "Gather": _embedding,
}
