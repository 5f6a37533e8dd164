"""Read an ONNX file into a ModelGraph.

Shapes come from ONNX's own inference with every input's shape set: a free first axis is 1, other
free axes are what the caller says. Operators that the inference does not know (ONNX Runtime's own)
leave shapes open; then the model is run once on zeros, and the shapes are read from what came out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.inspection.graph import (
    FreeTensor,
    GraphOperator,
    GraphTensor,
    ModelGraph,
)
from trimtab_compressor.inspection.onnx_layers import find_layers
from trimtab_compressor.quiet import quiet
from trimtab_protocol.errors import ConfigError, ErrorCode, ModelError
from trimtab_protocol.manifest import ModelFormat

Shapes = Mapping[str, tuple[int, ...]]

_STANDARD_DOMAINS = ("", "ai.onnx")
_GRAPH_ATTRIBUTES = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


def read_onnx_graph(path: Path, shapes: Shapes) -> ModelGraph:
    """Read a file.

    Args:
        path: .onnx
        shapes: Of inputs whose axes are free, by name.

    Raises:
        ModelError: `model.unreadable`: not an ONNX model, or a part of it is missing.
        ConfigError: A shape is given for something that is no input, or does not fit.
    """
    model = _load(path)
    declared = tuple(_declared(row) for row in _true_inputs(model.graph))
    outputs = tuple(_declared(row) for row in model.graph.output)
    _set_shapes(model.graph, shapes)
    notes = []
    inferred = _infer(model)
    tensors = _read_tensors(inferred)
    graph = ModelGraph(
        format=ModelFormat.ONNX,
        versions=_versions(model),
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))),
        inputs=declared,
        outputs=outputs,
        operators=tuple(_read_operator(node) for node in model.graph.node),
        inner_operators=tuple(_inner_operators(model.graph)),
        tensors=tensors,
    )
    if _has_open_shapes(graph) and _are_inputs_known(model.graph):
        found = _shapes_by_running(model, graph)
        if found:
            notes.append("shapes that ONNX cannot infer were read from one run on zeros")
            graph = replace(graph, tensors={**tensors, **found})
    return replace(graph, layers=find_layers(graph), notes=tuple(notes))


def _load(path: Path) -> onnx.ModelProto:
    from google.protobuf.message import (  # type: ignore[import-untyped]  # noqa: PLC0415 - comes with onnx
        DecodeError,
    )

    try:
        model = onnx.load(path)
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{path} cannot be read as an ONNX model: {str(error).splitlines()[0][:300]}",
            code=ErrorCode.MODEL_UNREADABLE,
        ) from error
    if not model.graph.node:
        raise ModelError(f"{path} holds no operators", code=ErrorCode.MODEL_UNREADABLE)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return model


def _versions(model: onnx.ModelProto) -> dict[str, int]:
    """Opsets of the domains that are used, and the IR version."""
    used = {node.domain or "ai.onnx" for node in model.graph.node} | {"ai.onnx"}
    opsets = {row.domain or "ai.onnx": row.version for row in model.opset_import}
    return {**{name: opsets[name] for name in opsets if name in used}, "ir": model.ir_version}


def _true_inputs(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Inputs without those that only give an initializer another value (IR version 3)."""
    constants = {row.name for row in graph.initializer}
    return [row for row in graph.input if row.name not in constants]


def _declared(row: onnx.ValueInfoProto) -> FreeTensor:
    tensor = row.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.dim_value > 0 else (dim.dim_param or None) for dim in tensor.shape.dim
    )
    return FreeTensor(row.name, _dtype_name(tensor.elem_type), shape)


def _set_shapes(graph: onnx.GraphProto, shapes: Shapes) -> None:
    inputs = {row.name: row for row in _true_inputs(graph)}
    for name in shapes:
        if name not in inputs:
            raise ConfigError(
                f"--shape: the model has no input '{name}'; its inputs are {', '.join(inputs)}"
            )
    for name, row in inputs.items():
        dims = row.type.tensor_type.shape.dim
        given = shapes.get(name, tuple(dim.dim_value for dim in dims))
        if len(given) != len(dims):
            raise ConfigError(
                f"--shape: input '{name}' has {len(dims)} axes, {len(given)} sizes were given"
            )
        for axis, (dim, size) in enumerate(zip(dims, given, strict=True)):
            _set_size(dim, size or int(axis == 0), f"axis {axis} of input '{name}'")


def _set_size(dim: onnx.TensorShapeProto.Dimension, size: int, what: str) -> None:
    """Fix an axis; 0 leaves it free."""
    if dim.dim_value > 0 and size != dim.dim_value:
        raise ConfigError(f"--shape: {what} is fixed to {dim.dim_value}, not {size}")
    if size > 0:
        dim.ClearField("dim_param")
        dim.dim_value = size


def _infer(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with inferred shapes; with none where the inference fails."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for row in bare.graph.output:
        if row.type.HasField("tensor_type"):
            row.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(bare, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return bare


def _read_tensors(model: onnx.ModelProto) -> dict[str, GraphTensor]:
    graph = model.graph
    tensors = {}
    for row in (*graph.input, *graph.value_info, *graph.output):
        tensors[row.name] = GraphTensor(
            row.name, _dtype_name(row.type.tensor_type.elem_type), _known_shape(row)
        )
    for name, constant in _constants(graph):
        tensors[name] = GraphTensor(
            name, _dtype_name(constant.data_type), tuple(constant.dims), _reader(constant)
        )
    return tensors


def _known_shape(row: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    tensor = row.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    sizes = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
    return None if any(size < 0 for size in sizes) else sizes


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for row in graph.initializer:
        yield row.name, row
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in _STANDARD_DOMAINS:
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def _reader(constant: onnx.TensorProto) -> Callable[[], AnyArray]:
    return lambda: np.asarray(numpy_helper.to_array(constant))


def _dtype_name(element: int) -> str:
    """As numpy calls it; "undefined" where the file does not say."""
    name = str(onnx.TensorProto.DataType.Name(element)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _read_operator(node: onnx.NodeProto) -> GraphOperator:
    integers = {
        row.name: int(row.i) for row in node.attribute if row.type == onnx.AttributeProto.INT
    }
    return GraphOperator(
        name=node.name,
        kind=node.op_type,
        domain="" if node.domain in _STANDARD_DOMAINS else node.domain,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes=integers,
    )


def _inner_operators(graph: onnx.GraphProto) -> Iterator[GraphOperator]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type not in _GRAPH_ATTRIBUTES:
                continue
            for inner in (attribute.g, *attribute.graphs):
                yield from (_read_operator(row) for row in inner.node)
                yield from _inner_operators(inner)


def _has_open_shapes(graph: ModelGraph) -> bool:
    return bool(_open_names(graph))


def _open_names(graph: ModelGraph) -> list[str]:
    names = (name for row in graph.operators for name in row.outputs if name)
    return [
        name
        for name in dict.fromkeys(names)
        if name not in graph.tensors or graph.tensors[name].shape is None
    ]


def _are_inputs_known(graph: onnx.GraphProto) -> bool:
    return all(_known_shape(row) is not None for row in _true_inputs(graph))


def _shapes_by_running(model: onnx.ModelProto, graph: ModelGraph) -> dict[str, GraphTensor]:
    """The open tensors as they come out of one run on zeros; empty if it does not run here."""
    import onnxruntime  # noqa: PLC0415 - only where the inference is not enough

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    present = {row.name for row in probe.graph.output}
    names = _open_names(graph)
    probe.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in present
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with quiet():
        try:
            session = onnxruntime.InferenceSession(
                probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            feeds = {row.name: _zeros(row) for row in _true_inputs(model.graph)}
            found = session.run(names, feeds)
        except Exception:  # noqa: BLE001 - onnxruntime has a dozen types; without shapes we say so
            return {}
    return {
        name: GraphTensor(name, value.dtype.name, tuple(value.shape))
        for name, value in zip(names, found, strict=True)
        if isinstance(value, np.ndarray)
    }


def _zeros(row: onnx.ValueInfoProto) -> Any:
    dtype = helper.tensor_dtype_to_np_dtype(row.type.tensor_type.elem_type)
    return np.zeros(_known_shape(row), dtype)
