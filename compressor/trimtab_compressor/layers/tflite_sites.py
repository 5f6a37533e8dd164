"""Find the weighted layers of a TFLite graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from trimtab_compressor.arrays import AnyArray, FloatArray
from trimtab_compressor.layers.port import Layer, LayerKind, Window
from trimtab_compressor.layers.tflite_graph import TfliteGraph

_FUNCTIONS = schema.ActivationFunctionType
FUSED_LIMITS: dict[int, float] = {_FUNCTIONS.RELU: math.inf, _FUNCTIONS.RELU6: 6.0}
"""Fused functions that let positive factors pass, with their upper limit."""

_DENSE_AXES = (0, 1)
_CONV_AXES = (0, 2, 3, 1)  # (o, i, h, w) -> (o, h, w, i)
_DEPTHWISE_AXES = (1, 2, 3, 0)  # (o, 1, h, w) -> (1, h, w, o)


@dataclass(frozen=True)
class Site:
    """A layer, and how to write it back.

    Args:
        layer: As the port shows it.
        operator: Its number in the main graph.
        stored_axes: How to transpose a weight for the file.
        fused: The function that is part of the operator.
        real_output: The tensor that the operator gives, behind that function.
    """

    layer: Layer
    operator: int
    stored_axes: tuple[int, ...]
    fused: int
    real_output: str


def find_sites(graph: TfliteGraph) -> tuple[Site, ...]:
    """All layers with constant float weights."""
    found = []
    for number, operator in enumerate(graph.main.operators):
        read = _READERS.get(graph.kind(operator))
        site = read(graph, operator, number) if read is not None else None
        if site is not None:
            found.append(site)
    return tuple(found)


def _read_conv(graph: TfliteGraph, operator: Any, number: int) -> Site | None:
    weight = _weight(graph, operator, _CONV_AXES)
    if weight is None:
        return None
    channels = graph.shape(int(operator.inputs[0]))[-1]
    groups = channels // weight.shape[1]
    return _site(graph, operator, number, weight=weight, groups=groups, kind=LayerKind.CONV)


def _read_depthwise(graph: TfliteGraph, operator: Any, number: int) -> Site | None:
    weight = _weight(graph, operator, _DEPTHWISE_AXES)
    if weight is None:
        return None
    channels = graph.shape(int(operator.inputs[0]))[-1]
    kind = LayerKind.DEPTHWISE_CONV
    return _site(graph, operator, number, weight=weight, groups=channels, kind=kind)


def _read_dense(graph: TfliteGraph, operator: Any, number: int) -> Site | None:
    weight = _weight(graph, operator, _DENSE_AXES)
    if weight is None or operator.builtinOptions.weightsFormat != 0:
        return None
    return _site(graph, operator, number, weight=weight, groups=1, kind=LayerKind.DENSE)


_READERS: dict[str, Callable[[TfliteGraph, Any, int], Site | None]] = {
    "CONV_2D": _read_conv,
    "DEPTHWISE_CONV_2D": _read_depthwise,
    "FULLY_CONNECTED": _read_dense,
}


def _weight(graph: TfliteGraph, operator: Any, stored_axes: tuple[int, ...]) -> FloatArray | None:
    """The weight as the port shows it; None if it is not a constant of floats."""
    values = graph.constant(int(operator.inputs[1]))
    if values is None or values.dtype != np.float32 or values.ndim != len(stored_axes):
        return None
    return np.ascontiguousarray(np.transpose(values, np.argsort(stored_axes)))


def _site(
    graph: TfliteGraph,
    operator: Any,
    number: int,
    *,
    weight: FloatArray,
    groups: int,
    kind: LayerKind,
) -> Site | None:
    is_readable, bias = _bias(graph, operator)
    if not is_readable:
        return None
    output = int(operator.outputs[0])
    name = graph.names[output]
    fused = operator.builtinOptions.fusedActivationFunction
    rank = len(graph.shape(output))
    layer = Layer(
        name=name,
        kind=kind,
        weight=weight,
        bias=bias,
        groups=groups,
        window=None if kind is LayerKind.DENSE else _window(operator.builtinOptions),
        input=graph.names[int(operator.inputs[0])],
        output=name if fused == _FUNCTIONS.NONE else f"{name}.before",
        rank=rank,
        channel_axis=rank - 1,
        bounds=(0.0, FUSED_LIMITS[fused]) if fused in FUSED_LIMITS else (-math.inf, math.inf),
    )
    return Site(layer, number, _AXES[kind], fused, name)


_AXES = {
    LayerKind.DENSE: _DENSE_AXES,
    LayerKind.CONV: _CONV_AXES,
    LayerKind.DEPTHWISE_CONV: _DEPTHWISE_AXES,
}


def _bias(graph: TfliteGraph, operator: Any) -> tuple[bool, AnyArray | None]:
    """Whether it can be read, and its values."""
    if len(operator.inputs) < 3 or operator.inputs[2] < 0:
        return True, None
    values = graph.constant(int(operator.inputs[2]))
    return values is not None, None if values is None else values.reshape(-1)


def _window(options: Any) -> Window:
    is_same = options.padding == schema.Padding.SAME
    return Window(
        strides=(options.strideH, options.strideW),
        dilations=(options.dilationHFactor, options.dilationWFactor),
        padding=None if is_same else ((0, 0), (0, 0)),
    )
