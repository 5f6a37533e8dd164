"""Real TFLite models without a converter: y = scale * x, for four floats, as one flatbuffer."""

from __future__ import annotations

import flatbuffers  # type: ignore[import-untyped]  # comes with LiteRT's own schema
import numpy
from ai_edge_litert import schema_py_generated as schema

FLOAT32 = schema.TensorType.FLOAT32


def make_tflite(scale: float = 2.0) -> bytes:
    """The bytes of a model file."""
    subgraph = schema.SubGraphT()
    subgraph.name = b"main"
    subgraph.tensors = [
        _tensor(b"x", [1, 4], 0),
        _tensor(b"scale", [1], 1),
        _tensor(b"y", [1, 4], 0),
    ]
    subgraph.inputs, subgraph.outputs = [0], [2]
    operator = schema.OperatorT()
    operator.opcodeIndex = 0
    operator.inputs, operator.outputs = [0, 1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.MulOptions
    operator.builtinOptions = schema.MulOptionsT()
    subgraph.operators = [operator]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.MUL
    code.version = 1
    weights = schema.BufferT()
    weights.data = numpy.frombuffer(numpy.array([scale], numpy.float32).tobytes(), numpy.uint8)
    model = schema.ModelT()
    model.version = 3
    model.operatorCodes, model.subgraphs = [code], [subgraph]
    model.buffers = [schema.BufferT(), weights]  # the first one is empty by the format's rule
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(name: bytes, shape: list[int], buffer: int) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, FLOAT32, buffer
    return tensor
