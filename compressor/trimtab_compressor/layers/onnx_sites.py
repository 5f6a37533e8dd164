"""Find the weighted layers of an ONNX graph, and where their weights and biases are kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.layers.onnx_graph import OnnxGraph, attributes_of
from trimtab_compressor.layers.port import Layer, LayerKind, Window

NO_BOUNDS = (-math.inf, math.inf)


@dataclass(frozen=True)
class Site:
    """A layer, and how to write it back.

    Args:
        layer: As the port shows it.
        weight: Name of the constant.
        is_transposed: Whether the file keeps (in, out).
        bias_node: Name of the node that adds the bias; None if a node has to be put in for one.
        bias_index: Which of its inputs that is.
        product: What the multiplying node gives.
    """

    layer: Layer
    weight: str
    is_transposed: bool
    bias_node: str | None
    bias_index: int
    product: str


def find_sites(graph: OnnxGraph) -> tuple[Site, ...]:
    """All layers with constant float weights that are read with certainty."""
    found = (
        _READERS[node.op_type](graph, node)
        for node in graph.nodes
        if node.op_type in _READERS and node.domain in ("", "ai.onnx")
    )
    return tuple(site for site in found if site is not None)


def upper_limit(graph: OnnxGraph, node: Any) -> float | None:
    """The limit of a clip that starts at 0; None if it is another one."""
    found = attributes_of(node)
    limits = [found.get("min"), found.get("max")]
    for place, name in enumerate(node.input[1:3]):
        if name:
            value = graph.constant(name)
            limits[place] = None if value is None else float(value.reshape(-1)[0])
    low, high = limits
    return float(high) if low == 0 and high is not None and high > 0 else None


def _read_conv(graph: OnnxGraph, node: Any) -> Site | None:
    weight = _weight(graph, node)
    window = _window(attributes_of(node), weight)
    if weight is None or window is None or not _can_read_bias(graph, node, len(weight)):
        return None
    groups = int(attributes_of(node).get("group", 1))
    is_depthwise = groups > 1 and weight.shape[1] == 1
    layer = Layer(
        name=node.name,
        kind=LayerKind.DEPTHWISE_CONV if is_depthwise else LayerKind.CONV,
        weight=weight,
        bias=_bias(graph, node),
        groups=groups,
        window=window,
        input=node.input[0],
        output=node.output[0],
        rank=weight.ndim,
        channel_axis=1,
        bounds=_bounds(graph, node.output[0]),
    )
    return Site(layer, node.input[1], False, node.name, 2, node.output[0])


def _read_gemm(graph: OnnxGraph, node: Any) -> Site | None:
    weight, found = _weight(graph, node), attributes_of(node)
    is_plain = found.get("alpha", 1.0) == found.get("beta", 1.0) == 1.0
    if weight is None or not is_plain or found.get("transA", 0):
        return None
    is_transposed = not found.get("transB", 0)
    if not _can_read_bias(graph, node, weight.shape[1 if is_transposed else 0]):
        return None
    layer = Layer(
        name=node.name,
        kind=LayerKind.DENSE,
        weight=np.ascontiguousarray(weight.T) if is_transposed else weight,
        bias=_bias(graph, node),
        groups=1,
        window=None,
        input=node.input[0],
        output=node.output[0],
        rank=2,
        channel_axis=1,
        bounds=_bounds(graph, node.output[0]),
    )
    return Site(layer, node.input[1], is_transposed, node.name, 2, node.output[0])


def _read_matmul(graph: OnnxGraph, node: Any) -> Site | None:
    weight = _weight(graph, node)
    if weight is None or weight.ndim != 2:
        return None
    product = output = node.output[0]
    bias, bias_node, bias_index = None, None, 0
    adder = graph.only_reader(product)
    if adder is not None and adder.op_type == "Add":
        index = 1 if adder.input[0] == product else 0
        values = graph.constant(adder.input[index])
        if values is not None and values.size == weight.shape[1] == values.shape[-1]:
            bias, bias_node, bias_index = values.reshape(-1), adder.name, index
            output = adder.output[0]
    rank = len(graph.shape(product) or ())
    layer = Layer(
        name=node.name,
        kind=LayerKind.DENSE,
        weight=np.ascontiguousarray(weight.T),
        bias=bias,
        groups=1,
        window=None,
        input=node.input[0],
        output=output,
        rank=rank,
        channel_axis=max(rank - 1, 0),
        bounds=_bounds(graph, output),
    )
    return Site(layer, node.input[1], True, bias_node, bias_index, product)


_READERS: dict[str, Callable[[OnnxGraph, Any], Site | None]] = {
    "Conv": _read_conv,
    "Gemm": _read_gemm,
    "MatMul": _read_matmul,
}


def _weight(graph: OnnxGraph, node: Any) -> AnyArray | None:
    values = graph.constant(node.input[1])
    return values if values is not None and values.dtype == np.float32 else None


def _can_read_bias(graph: OnnxGraph, node: Any, outputs: int) -> bool:
    """Whether there is none, or a constant one with a value per output."""
    if len(node.input) < 3 or not node.input[2]:
        return True
    values = graph.constant(node.input[2])
    return values is not None and values.size == outputs


def _bias(graph: OnnxGraph, node: Any) -> AnyArray | None:
    values = graph.constant(node.input[2]) if len(node.input) > 2 else None
    return None if values is None else values.reshape(-1)


def _window(found: dict[str, Any], weight: AnyArray | None) -> Window | None:
    """None where the padding depends on what this cannot know."""
    if weight is None or weight.ndim < 3:
        return None
    axes = weight.ndim - 2
    strides = tuple(found.get("strides") or [1] * axes)
    dilations = tuple(found.get("dilations") or [1] * axes)
    automatic = found.get("auto_pad", b"NOTSET")
    if automatic == b"SAME_UPPER":
        return Window(strides, dilations, None)
    pads = [0] * 2 * axes if automatic == b"VALID" else list(found.get("pads") or [0] * 2 * axes)
    if automatic not in (b"NOTSET", b"VALID"):
        return None
    return Window(strides, dilations, tuple(zip(pads[:axes], pads[axes:], strict=True)))


def _bounds(graph: OnnxGraph, output: str) -> tuple[float, float]:
    reader = graph.only_reader(output)
    if reader is not None and reader.op_type == "Relu":
        return (0.0, math.inf)
    if reader is not None and reader.op_type == "Clip":
        limit = upper_limit(graph, reader)
        return NO_BOUNDS if limit is None else (0.0, limit)
    return NO_BOUNDS
