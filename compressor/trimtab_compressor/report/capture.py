"""What the layers of a file give, one sample at a time, by the arithmetic as written in the file.

ONNX: the layers' outputs are made outputs of the model. TFLite: the interpreter is told to keep all
tensors. Both give real numbers: what is stored as integers is dequantized.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.inspection.graph import GraphOperator, Layer, ModelGraph, takers_of
from trimtab_compressor.inspection.weights import dequantize
from trimtab_compressor.runtimes.port import Arrays
from trimtab_protocol.manifest import ModelFormat

Capture = Callable[[Arrays], dict[str, AnyArray]]
"""Inputs of one sample -> activations by the names that were asked for."""

_FOLLOWED = frozenset({"Relu", "Clip", "QuantizeLinear", "DequantizeLinear"})
_SCALED = frozenset({"MatMulInteger", "ConvInteger"})
"""Their sums become real numbers by Cast and Mul, and Add brings the bias."""


def activation_of(graph: ModelGraph, layer: Layer) -> str | None:
    """Name of the tensor that holds a layer's result in real numbers.

    In ONNX the activation function and the Q/DQ pair after it belong to the layer: the tensor after
    them is what the next layer sees. None where a layer's result is spread over other operators.
    """
    if graph.format is ModelFormat.TFLITE:
        return layer.output
    takers, name, found = takers_of(graph.operators), layer.output, None
    is_scaled = layer.operator.kind not in _SCALED
    while True:
        tensor = graph.tensors.get(name)
        if is_scaled and tensor is not None and tensor.dtype in ("float32", "float16"):
            found = name
        steps = takers.get(name, [])
        if len(steps) != 1 or not _belongs(graph, layer, steps[0]):
            return found
        is_scaled = is_scaled or steps[0].kind == "Mul"
        name = steps[0].outputs[0]


def _belongs(graph: ModelGraph, layer: Layer, step: GraphOperator) -> bool:
    """Whether an operator after a layer only finishes what the layer gives."""
    if step.kind in _FOLLOWED:
        return True
    if layer.operator.kind not in _SCALED:
        return False
    constants = [name for name in step.inputs if name in graph.tensors]
    is_bias = step.kind == "Add" and any(graph.tensors[name].is_constant for name in constants)
    return is_bias or step.kind in ("Cast", "Mul")


def open_capture(path: Path, graph: ModelGraph, names: Sequence[str]) -> Capture:
    """Load a file so that some of its tensors can be looked at.

    Args:
        path: The file that `graph` was read from.
        graph: Of the file.
        names: Of tensors in it.
    """
    open_file = _open_onnx if graph.format is ModelFormat.ONNX else _open_tflite
    return open_file(path, graph, names)


def _open_onnx(path: Path, graph: ModelGraph, names: Sequence[str]) -> Capture:
    import onnx  # noqa: PLC0415 - heavy
    import onnxruntime  # noqa: PLC0415

    del graph
    model = onnx.load(path)
    present = {row.name for row in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=row) for row in names if row not in present)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def capture(inputs: Arrays) -> dict[str, AnyArray]:
        found = session.run(list(names), dict(inputs))
        return {name: np.asarray(rows) for name, rows in zip(names, found, strict=True)}

    return capture


def _open_tflite(path: Path, graph: ModelGraph, names: Sequence[str]) -> Capture:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType  # noqa: PLC0415 - heavy

    from trimtab_compressor.quiet import quiet  # noqa: PLC0415

    with quiet():
        interpreter = Interpreter(
            str(path),
            num_threads=1,
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
    places = {name: index for index, name in enumerate(graph.tensors)}  # in the order of the file
    details = interpreter.get_input_details()

    def capture(inputs: Arrays) -> dict[str, AnyArray]:
        for row in details:
            interpreter.set_tensor(row["index"], inputs[row["name"]])
        interpreter.invoke()
        return {name: _real(graph, name, interpreter.get_tensor(places[name])) for name in names}

    return capture


def _real(graph: ModelGraph, name: str, rows: AnyArray) -> AnyArray:
    affine = graph.tensors[name].affine
    return rows if affine is None or rows.dtype.kind == "f" else dequantize(rows, affine)
