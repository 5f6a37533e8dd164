"""Read a TFLite file into a ModelGraph, straight from the flatbuffer: nothing is run.

Source of the layout: schema.fbs (version 3). Constants of large files lie behind the flatbuffer, at
`Buffer.offset` from the start of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.inspection.graph import (
    ELEMENT_BITS,
    Affine,
    FreeTensor,
    GraphOperator,
    GraphTensor,
    ModelGraph,
)
from trimtab_compressor.inspection.tflite_layers import find_layers
from trimtab_protocol.errors import ErrorCode, ModelError
from trimtab_protocol.manifest import ModelFormat

FILE_MARK, MARK_START = b"TFL3", 4
_BROKEN = (struct.error, IndexError, ValueError, TypeError, AttributeError, OverflowError)
"""What the generated reader raises when offsets point nowhere."""

_TYPES = {
    value: name.lower()
    for name, value in vars(schema.TensorType).items()
    if not name.startswith("_")
}
_OPERATORS = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")
}


def read_tflite_graph(path: Path) -> ModelGraph:
    """Read a file.

    Raises:
        ModelError: `model.unreadable`: not a TFLite model.
    """
    data = path.read_bytes()
    if data[MARK_START : MARK_START + len(FILE_MARK)] != FILE_MARK:
        raise ModelError(
            f"{path} cannot be read as a TFLite model: the mark TFL3 is missing",
            code=ErrorCode.MODEL_UNREADABLE,
        )
    try:
        return _Reader(data).read()
    except _BROKEN as error:
        raise ModelError(
            f"{path} cannot be read as a TFLite model: {type(error).__name__}: {error}",
            code=ErrorCode.MODEL_UNREADABLE,
        ) from error


class _Reader:
    """Reads one file; the names of a subgraph's tensors are made unique first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._model: Any = schema.Model.GetRootAs(data, 0)

    def read(self) -> ModelGraph:
        subgraph = self._model.Subgraphs(0)
        names = _unique_names(subgraph)
        graph = ModelGraph(
            format=ModelFormat.TFLITE,
            versions={"schema": self._model.Version()},
            producer=_text(self._model.Description()),
            inputs=self._declared(subgraph, names, subgraph.InputsAsNumpy()),
            outputs=self._declared(subgraph, names, subgraph.OutputsAsNumpy()),
            operators=tuple(self._operators(subgraph, names)),
            inner_operators=tuple(self._inner_operators()),
            tensors=self._tensors(subgraph, names),
            notes=self._notes(),
        )
        return replace(graph, layers=find_layers(graph))

    def _notes(self) -> tuple[str, ...]:
        if self._model.SignatureDefsLength():
            return ()
        return ("the file has no signature; the TFLite quantizer needs one to calibrate",)

    def _declared(
        self, subgraph: Any, names: list[str], indices: AnyArray
    ) -> tuple[FreeTensor, ...]:
        rows = []
        for index in np.atleast_1d(indices):
            tensor = subgraph.Tensors(int(index))
            sizes = (
                tensor.ShapeSignatureAsNumpy() if tensor.ShapeSignatureLength() else _sizes(tensor)
            )
            shape = tuple(int(size) if size > 0 else None for size in sizes)
            rows.append(FreeTensor(names[int(index)], _TYPES[tensor.Type()], shape))
        return tuple(rows)

    def _tensors(self, subgraph: Any, names: list[str]) -> dict[str, GraphTensor]:
        found = {}
        for index, name in enumerate(names):
            tensor = subgraph.Tensors(index)
            shape = tuple(int(size) for size in _sizes(tensor))
            found[name] = GraphTensor(
                name=name,
                dtype=_TYPES[tensor.Type()],
                shape=None if _has_free_axis(tensor) else shape,
                values=self._constant(tensor, shape),
                affine=_read_affine(tensor),
            )
        return found

    def _constant(self, tensor: Any, shape: tuple[int, ...]) -> Callable[[], AnyArray] | None:
        buffer = self._model.Buffers(tensor.Buffer())
        dtype = _TYPES[tensor.Type()]
        if not buffer.DataLength() and buffer.Offset() <= 1:
            return None
        return lambda: _decode(self._raw(buffer), dtype, shape)

    def _raw(self, buffer: Any) -> AnyArray:
        if buffer.DataLength():
            return np.asarray(buffer.DataAsNumpy(), np.uint8)
        return np.frombuffer(self._data, np.uint8, count=buffer.Size(), offset=buffer.Offset())

    def _operators(self, subgraph: Any, names: list[str]) -> Iterator[GraphOperator]:
        for index in range(subgraph.OperatorsLength()):
            operator = subgraph.Operators(index)
            kind, domain = self._kind(operator)
            yield GraphOperator(
                name="",
                kind=kind,
                domain=domain,
                inputs=_named(names, operator.InputsAsNumpy()),
                outputs=_named(names, operator.OutputsAsNumpy()),
            )

    def _inner_operators(self) -> Iterator[GraphOperator]:
        for index in range(1, self._model.SubgraphsLength()):
            subgraph = self._model.Subgraphs(index)
            yield from self._operators(subgraph, _unique_names(subgraph))

    def _kind(self, operator: Any) -> tuple[str, str]:
        """Its type and "", or the name of a custom operator and "custom"."""
        code = self._model.OperatorCodes(operator.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if number == schema.BuiltinOperator.CUSTOM:
            return _text(code.CustomCode()) or "CUSTOM", "custom"
        return _OPERATORS.get(number, f"OPERATOR_{number}"), ""


def _unique_names(subgraph: Any) -> list[str]:
    names: list[str] = []
    seen: set[str] = set()
    for index in range(subgraph.TensorsLength()):
        name = _text(subgraph.Tensors(index).Name())
        if not name or name in seen:
            name = f"{name}#{index}"
        seen.add(name)
        names.append(name)
    return names


def _named(names: list[str], indices: Any) -> tuple[str, ...]:
    """A generated reader gives 0 for an empty list; -1 stands for an input that is left out."""
    if isinstance(indices, int):
        return ()
    return tuple(names[int(index)] if index >= 0 else "" for index in indices)


def _sizes(tensor: Any) -> AnyArray:
    return np.asarray(tensor.ShapeAsNumpy()) if tensor.ShapeLength() else np.zeros(0, np.int32)


def _has_free_axis(tensor: Any) -> bool:
    """Whether an axis other than the first is free: a free batch stands in the file as 1."""
    if not tensor.ShapeSignatureLength():
        return False
    return bool((np.asarray(tensor.ShapeSignatureAsNumpy())[1:] < 0).any())


def _read_affine(tensor: Any) -> Affine | None:
    quantization = tensor.Quantization()
    if quantization is None or not quantization.ScaleLength():
        return None
    scale = np.asarray(quantization.ScaleAsNumpy(), np.float64)
    zero_point = np.zeros_like(scale)
    if quantization.ZeroPointLength():
        zero_point = np.asarray(quantization.ZeroPointAsNumpy(), np.float64)
    return Affine(scale, zero_point, quantization.QuantizedDimension() if scale.size > 1 else None)


def _decode(raw: AnyArray, dtype: str, shape: tuple[int, ...]) -> AnyArray:
    """Bytes as an array; two values of four bits share a byte, the low half first."""
    if ELEMENT_BITS.get(dtype) == 4:
        halves = np.stack([raw & 0xF, raw >> 4], axis=1).reshape(-1)[: int(np.prod(shape))]
        signed = np.where(halves > 7, halves.astype(np.int8) - 16, halves)
        return np.asarray(signed if dtype == "int4" else halves, np.int8).reshape(shape)
    if dtype == "bfloat16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.asarray(raw.view(np.dtype(dtype).newbyteorder("<"))).reshape(shape)


def _text(raw: bytes | None) -> str:
    return raw.decode(errors="replace") if raw else ""
