"""Models that take some milliseconds, grown from a seed: no network, no training, no converter.

Both are the same small picture network: `LAYERS` convolutions of 3 x 3 with ReLU on 64 x 64 pixels
of 32 channels, float32. That is 38 million multiplications a layer: long enough that a timer's own
cost and a tool that prints two decimals do not matter.
"""

from __future__ import annotations

from typing import Any

import flatbuffers  # type: ignore[import-untyped]  # comes with LiteRT's own schema
import numpy
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

SIDE, CHANNELS, KERNEL = 64, 32, 3
LAYERS = 4

Array = numpy.ndarray[Any, Any]


def grow_onnx(seed: int = 1, layers: int = LAYERS) -> bytes:
    """The bytes of a .onnx file; input (1, 32, 64, 64)."""
    shape = [1, CHANNELS, SIDE, SIDE]
    weights, nodes = [], []
    for number, kernel in enumerate(_kernels(seed, layers)):
        weights.append(numpy_helper.from_array(kernel, f"w{number}"))
        conv = [f"h{number}", f"w{number}"]
        nodes.append(helper.make_node("Conv", conv, [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"h{number + 1}"]))
    graph = helper.make_graph(
        nodes,
        "grown",
        [helper.make_tensor_value_info("h0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"h{layers}", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def grow_tflite(seed: int = 1, layers: int = LAYERS) -> bytes:
    """The bytes of a .tflite file; input (1, 64, 64, 32)."""
    shape = [1, SIDE, SIDE, CHANNELS]
    buffers = [schema.BufferT()]  # the first one is empty by the format's rule
    tensors = [_tensor("h0", shape, 0)]
    operators = []
    bias = _add_buffer(buffers, numpy.zeros(CHANNELS, numpy.float32))
    for number, kernel in enumerate(_kernels(seed, layers)):
        # (out, in, h, w) -> (out, h, w, in)
        weights = _add_buffer(buffers, kernel.transpose(0, 2, 3, 1))
        before, first = len(tensors) - 1, len(tensors)
        tensors += [
            _tensor(f"w{number}", [CHANNELS, KERNEL, KERNEL, CHANNELS], weights),
            _tensor(f"b{number}", [CHANNELS], bias),
            _tensor(f"h{number + 1}", shape, 0),
        ]
        operators.append(_convolution([before, first, first + 1], first + 2))
    subgraph = schema.SubGraphT()
    subgraph.name, subgraph.tensors, subgraph.operators = b"main", tensors, operators
    subgraph.inputs, subgraph.outputs = [0], [len(tensors) - 1]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    code.version = 1
    model = schema.ModelT()
    model.version, model.operatorCodes = 3, [code]
    model.subgraphs, model.buffers = [subgraph], buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _kernels(seed: int, layers: int) -> list[Array]:
    """(out, in, h, w) each, scaled so that values neither vanish nor explode (He et al. 2015)."""
    generator = numpy.random.default_rng(seed)
    shape = (CHANNELS, CHANNELS, KERNEL, KERNEL)
    deviation = (2.0 / (CHANNELS * KERNEL * KERNEL)) ** 0.5
    return [
        (generator.standard_normal(shape) * deviation).astype(numpy.float32) for _ in range(layers)
    ]


def _convolution(inputs: list[int], output: int) -> schema.OperatorT:
    options = schema.Conv2DOptionsT()
    options.padding = schema.Padding.SAME
    options.strideH = options.strideW = 1
    options.dilationHFactor = options.dilationWFactor = 1
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    operator = schema.OperatorT()
    operator.opcodeIndex = 0
    operator.inputs, operator.outputs = inputs, [output]
    operator.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
    operator.builtinOptions = options
    return operator


def _tensor(name: str, shape: list[int], buffer: int) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer = name.encode(), shape, buffer
    tensor.type = schema.TensorType.FLOAT32
    return tensor


def _add_buffer(buffers: list[schema.BufferT], values: Array) -> int:
    buffer = schema.BufferT()
    buffer.data = numpy.frombuffer(numpy.ascontiguousarray(values).tobytes(), numpy.uint8)
    buffers.append(buffer)
    return len(buffers) - 1
