"""The network of layer_models.py as a TFLite file, operator by operator: NHWC, functions fused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]  # comes with LiteRT's own schema
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

FLOAT32, INT32 = schema.TensorType.FLOAT32, schema.TensorType.INT32
NO_FUNCTION, RELU, RELU6 = (
    0,
    schema.ActivationFunctionType.RELU,
    schema.ActivationFunctionType.RELU6,
)
CODES = schema.BuiltinOperator


class TfliteWriter:
    """Adds operators to a graph, each with its constants; tensors are numbers."""

    def __init__(self, seed: int, spread: float) -> None:
        self.random = np.random.default_rng(seed)
        self.spread = spread
        self.graph = schema.SubGraphT()
        self.graph.name, self.graph.tensors, self.graph.operators = b"main", [], []
        self.model = schema.ModelT()
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.operatorCodes, self.model.buffers = [], [schema.BufferT()]

    def tensor(
        self, name: str, shape: tuple[int, ...], kind: int = FLOAT32, buffer: int = 0
    ) -> int:
        row = schema.TensorT()
        row.name, row.shape, row.type, row.buffer = name.encode(), list(shape), kind, buffer
        self.graph.tensors.append(row)
        return len(self.graph.tensors) - 1

    def constant(self, name: str, values: NDArray[Any]) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        kind = INT32 if values.dtype == np.int32 else FLOAT32
        return self.tensor(name, values.shape, kind, len(self.model.buffers) - 1)

    def operator(
        self, code: int, inputs: list[int], name: str, shape: tuple[int, ...], options: Any = None
    ) -> int:
        """Add an operator; gives its output."""
        row = schema.OperatorT()
        row.inputs, row.outputs = inputs, [self.tensor(name, shape)]
        if options is not None:
            kind = type(options).__name__.removesuffix("T")
            row.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            row.builtinOptions = options
        codes = [known.builtinCode for known in self.model.operatorCodes]
        if code not in codes:
            known = schema.OperatorCodeT()
            known.builtinCode = known.deprecatedBuiltinCode = code
            known.version = 1
            self.model.operatorCodes.append(known)
            codes.append(code)
        row.opcodeIndex = codes.index(code)
        self.graph.operators.append(row)
        return int(row.outputs[0])

    def weight(self, name: str, shape: tuple[int, ...], axis: int) -> int:
        """Normal values; output channels, at `axis`, differ by up to `spread`."""
        fan_in = math.prod(shape) / shape[axis]
        scales = self.spread ** self.random.uniform(-0.5, 0.5, shape[axis])
        along = [1] * len(shape)
        along[axis] = shape[axis]
        values = self.random.normal(0, np.sqrt(2 / fan_in), shape) * scales.reshape(along)
        return self.constant(f"{name}.w", values.astype(np.float32))

    def layer(
        self,
        code: int,
        source: int,
        name: str,
        *,
        weight: tuple[int, ...],
        output: tuple[int, ...],
        fused: int,
        has_bias: bool = True,
    ) -> int:
        is_depthwise = code == CODES.DEPTHWISE_CONV_2D
        axis = 3 if is_depthwise else 0
        inputs = [source, self.weight(name, weight, axis)]
        bias = self.random.normal(0, 0.1, weight[axis]).astype(np.float32)
        inputs.append(self.constant(f"{name}.b", bias) if has_bias else -1)
        options: Any = schema.FullyConnectedOptionsT()
        if code != CODES.FULLY_CONNECTED:
            options = schema.DepthwiseConv2DOptionsT() if is_depthwise else schema.Conv2DOptionsT()
            options.strideH = options.strideW = 2 if output[1] < self.shape(source)[1] else 1
            options.padding = schema.Padding.SAME
            if is_depthwise:
                options.depthMultiplier = 1
        options.fusedActivationFunction = fused
        return self.operator(code, inputs, name, output, options)

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(self.graph.tensors[tensor].shape)

    def save(self, source: int, output: int, path: Path) -> Path:
        self.graph.inputs, self.graph.outputs = [source], [output]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def write_block_tflite(
    path: Path, *, limit: float | None = None, spread: float = 30.0, head: str = "mean"
) -> Path:
    """The file; see layer_models.write_block_onnx."""
    to = TfliteWriter(seed=3, spread=spread)
    fused = RELU if limit is None else RELU6
    conv, depthwise, dense = CODES.CONV_2D, CODES.DEPTHWISE_CONV_2D, CODES.FULLY_CONNECTED
    image = to.tensor("image", (1, 8, 8, 3))
    x = to.layer(conv, image, "stem", weight=(8, 3, 3, 3), output=(1, 8, 8, 8), fused=fused)
    y = to.layer(conv, x, "expand", weight=(16, 1, 1, 8), output=(1, 8, 8, 16), fused=fused)
    y = to.layer(depthwise, y, "depth", weight=(1, 3, 3, 16), output=(1, 8, 8, 16), fused=fused)
    y = to.layer(conv, y, "project", weight=(8, 1, 1, 16), output=(1, 8, 8, 8), fused=NO_FUNCTION)
    x = to.operator(CODES.ADD, [x, y], "sum", (1, 8, 8, 8), schema.AddOptionsT())
    x = to.layer(conv, x, "wide", weight=(12, 3, 3, 8), output=(1, 4, 4, 12), fused=fused)
    if head == "mean":
        axes = to.constant("axes", np.array([1, 2], np.int32))
        x, features = (
            to.operator(CODES.MEAN, [x, axes], "pool", (1, 12), schema.ReducerOptionsT()),
            12,
        )
    else:
        pool = schema.Pool2DOptionsT()
        pool.filterHeight = pool.filterWidth = pool.strideH = pool.strideW = 2
        pool.padding = schema.Padding.VALID
        x, features = to.operator(CODES.MAX_POOL_2D, [x], "pool", (1, 2, 2, 12), pool), 48
        shape = to.constant("shape", np.array([1, 48], np.int32))
        x = to.operator(CODES.RESHAPE, [x, shape], "flat", (1, 48), schema.ReshapeOptionsT())
    x = to.layer(dense, x, "hidden", weight=(20, features), output=(1, 20), fused=RELU)
    x = to.layer(
        dense, x, "answer", weight=(5, 20), output=(1, 5), fused=NO_FUNCTION, has_bias=False
    )
    return to.save(image, x, path)
