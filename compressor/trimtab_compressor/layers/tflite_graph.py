"""Reading and writing a TFLite flatbuffer: operators by name, constants, tensor names that are unique.

Weights above 256 KiB may stand behind the flatbuffer, at an offset that a buffer names; they are
taken in, so that what is written has all of them inside, as every runtime version reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]  # comes with LiteRT's own schema
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from trimtab_compressor.arrays import AnyArray

FILE_IDENTIFIER = b"TFL3"
_CODES = {
    value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
}
_DTYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
}


class TfliteGraph:
    """Look-ups over the main graph of a model; `model` may be changed and packed again.

    Args:
        content: The bytes of the file.
    """

    def __init__(self, content: bytes) -> None:
        self.model: Any = schema.ModelT.InitFromPackedBuf(bytearray(content))
        for buffer in self.model.buffers:
            if buffer.offset > 1:  # 0 and 1 mean that the data is inside
                part = content[buffer.offset : buffer.offset + buffer.size]
                buffer.data = np.frombuffer(part, np.uint8)
            buffer.offset = buffer.size = 0
        self.main: Any = self.model.subgraphs[0]
        self.tensors: list[Any] = list(self.main.tensors)
        self.readers = Counter(
            [
                *(index for operator in self.main.operators for index in reads_of(operator)),
                *(int(index) for index in self.main.outputs),
            ]
        )
        self.names = _unique_names(self.tensors)
        self.index_of = {name: index for index, name in enumerate(self.names)}

    def kind(self, operator: Any) -> str:
        """The operator's name, such as CONV_2D."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        return str(_CODES.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM"))

    def shape(self, index: int) -> tuple[int, ...]:
        """As the file fixes it."""
        shape = self.tensors[index].shape
        return () if shape is None else tuple(int(size) for size in shape)

    def constant(self, index: int) -> AnyArray | None:
        """The values of a constant, or None if it is none or of another type."""
        tensor = self.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if data is None or not len(data) or tensor.type not in _DTYPES:
            return None
        values = np.frombuffer(np.asarray(data, np.uint8).tobytes(), _DTYPES[tensor.type])
        return values.reshape(self.shape(index))

    def set_constant(self, operator: Any, place: int, values: AnyArray) -> None:
        """Give an operator new constant values; what others read stays as it is for them."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        inputs = [int(index) for index in operator.inputs]
        inputs += [-1] * (place + 1 - len(inputs))
        if inputs[place] < 0 or self.readers[inputs[place]] > 1:
            tensor = schema.TensorT()
            tensor.name = f"{self.names[int(operator.outputs[0])]}.{place}.own".encode()
            tensor.shape, tensor.type = list(values.shape), schema.TensorType.FLOAT32
            self.main.tensors.append(tensor)
            inputs[place] = len(self.main.tensors) - 1
        self.main.tensors[inputs[place]].buffer = len(self.model.buffers) - 1
        operator.inputs = inputs

    def keep_only(self, indices: Iterable[int]) -> None:
        """Make these tensors the outputs, and remove the operators that they do not need."""
        wanted = list(indices)
        needed, kept = set(wanted), []
        for operator in reversed(self.main.operators):
            if needed.intersection(int(index) for index in operator.outputs):
                kept.append(operator)
                needed.update(reads_of(operator))
        self.main.operators = kept[::-1]
        self.main.outputs = wanted
        self.model.signatureDefs = []

    def pack(self, target: Path) -> None:
        """Write the model; what nothing refers to any more is left empty."""
        used = {tensor.buffer for part in self.model.subgraphs for tensor in part.tensors}
        used |= {row.buffer for row in self.model.metadata or ()}
        for number, buffer in enumerate(self.model.buffers):
            if number not in used:
                buffer.data = None
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), FILE_IDENTIFIER)
        target.write_bytes(bytes(builder.Output()))


def reads_of(operator: Any) -> list[int]:
    """The tensors that an operator reads."""
    inputs = () if operator.inputs is None else operator.inputs
    return [int(index) for index in inputs if index >= 0]


def _unique_names(tensors: list[Any]) -> list[str]:
    names = [(tensor.name or b"").decode(errors="replace") for tensor in tensors]
    counts = Counter(names)
    return [
        name if name and counts[name] == 1 else f"{name}#{index}"
        for index, name in enumerate(names)
    ]
