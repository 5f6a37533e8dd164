"""Small ONNX files from elsewhere, of the kinds that exporters make: several inputs and outputs, free
axes, old opsets, weights in a file of their own, operators that no runtime has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FEATURES, HIDDEN, CLASSES = 8, 16, 3
FLOAT = TensorProto.FLOAT


def draw_weights(seed: int, *shape: int) -> NDArray[np.float32]:
    """Normal, scaled so that activations keep their size."""
    scale = 1.0 / np.sqrt(shape[0])
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def write_two_headed_onnx(path: Path, *, opset: int = 17, is_split: bool = False) -> Path:
    """Inputs a, b (batch, 8) -> scores (batch, 3), embedding (batch, 4, 4)."""
    nodes = [
        helper.make_node("MatMul", ["a", "wa"], ["ha"]),
        helper.make_node("MatMul", ["b", "wb"], ["hb"]),
        helper.make_node("Add", ["ha", "hb"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "ws"], ["scores"]),
        helper.make_node("MatMul", ["r", "we"], ["e"]),
        helper.make_node("Reshape", ["e", "square"], ["embedding"]),
    ]
    weights = {
        "wa": draw_weights(1, FEATURES, HIDDEN),
        "wb": draw_weights(2, FEATURES, HIDDEN),
        "ws": draw_weights(3, HIDDEN, CLASSES),
        "we": draw_weights(4, HIDDEN, HIDDEN),
    }
    constants = [numpy_helper.from_array(row, name) for name, row in weights.items()]
    constants.append(numpy_helper.from_array(np.array([0, 4, 4], np.int64), "square"))
    graph = helper.make_graph(
        nodes,
        "two heads",
        [helper.make_tensor_value_info(name, FLOAT, ["n", FEATURES]) for name in ("a", "b")],
        [
            helper.make_tensor_value_info("scores", FLOAT, ["n", CLASSES]),
            helper.make_tensor_value_info("embedding", FLOAT, ["n", 4, 4]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    if is_split:
        onnx.save(
            model, path, save_as_external_data=True, location=f"{path.stem}.bin", size_threshold=100
        )
    else:
        onnx.save(model, path)
    return path


def write_free_axes_onnx(path: Path, *, batch: int | str = "n") -> Path:
    """Input (batch, 2, time) of any time -> convolution -> mean over time -> scores (batch, 3)."""
    nodes = [
        helper.make_node("Conv", ["x", "wc"], ["c"], pads=[1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "wd"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "free axes",
        [helper.make_tensor_value_info("x", FLOAT, [batch, 2, "time"])],
        [helper.make_tensor_value_info("y", FLOAT, [batch, CLASSES])],
        [
            numpy_helper.from_array(draw_weights(5, HIDDEN, 2, 3), "wc"),
            numpy_helper.from_array(draw_weights(6, HIDDEN, CLASSES), "wd"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def write_unknown_operator_onnx(path: Path) -> Path:
    """An operator of a domain that nobody has."""
    graph = helper.make_graph(
        [helper.make_node("Wobble", ["x"], ["y"], domain="com.acme")],
        "unknown",
        [helper.make_tensor_value_info("x", FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 4])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def two_headed_samples(count: int = 40) -> dict[str, NDArray[np.float32]]:
    """By input name."""
    random = np.random.default_rng(7)
    return {name: random.normal(size=(count, FEATURES)).astype(np.float32) for name in ("a", "b")}
