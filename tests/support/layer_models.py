"""A small MobileNet-like ONNX file whose channels have very different ranges, as training leaves them.

Convolution, then an inverted residual block (expand, depthwise, project, add), a convolution behind
a stride, then mean or flatten, then dense. Made node by node: nothing is exported or trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

IMAGE = (3, 8, 8)
Floats = NDArray[np.float32]


class OnnxWriter:
    """Adds nodes to a graph, each with its constants."""

    def __init__(self, seed: int, spread: float) -> None:
        self.random = np.random.default_rng(seed)
        self.spread = spread
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        """Add a node; the name of what it gives is its own."""
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"

    def constant(self, name: str, values: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """Normal values; output channels differ by up to `spread`."""
        values = self.random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        scales = self.spread ** self.random.uniform(-0.5, 0.5, (shape[0], *[1] * (len(shape) - 1)))
        return self.constant(name, (values * scales).astype(np.float32))

    def conv(self, source: str, name: str, shape: tuple[int, ...], **attributes: object) -> str:
        bias = self.constant(f"{name}.b", self.random.normal(0, 0.1, shape[0]).astype(np.float32))
        return self.node(
            "Conv", [source, self.weight(f"{name}.w", *shape), bias], name, **attributes
        )

    def clip(self, source: str, name: str, limit: float | None) -> str:
        if limit is None:
            return self.node("Relu", [source], name)
        low = self.constant(f"{name}.low", np.array(0, np.float32))
        high = self.constant(f"{name}.high", np.array(limit, np.float32))
        return self.node("Clip", [source, low, high], name)

    def save(self, output: str, outputs: int, path: Path) -> Path:
        self.nodes.append(helper.make_node("Identity", [output], ["logits"], name="last"))
        graph = helper.make_graph(
            self.nodes,
            "layers",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *IMAGE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", outputs])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return path


def write_block_onnx(
    path: Path, *, limit: float | None = None, spread: float = 30.0, head: str = "mean"
) -> Path:
    """The file; `limit` makes each ReLU a clip, `head` is "mean" or "flatten"."""
    to = OnnxWriter(seed=3, spread=spread)
    around = {"pads": [1, 1, 1, 1]}
    x = to.clip(to.conv("image", "stem", (8, 3, 3, 3), **around), "stem.act", limit)
    y = to.clip(to.conv(x, "expand", (16, 8, 1, 1)), "expand.act", limit)
    y = to.clip(to.conv(y, "depth", (16, 1, 3, 3), group=16, **around), "depth.act", limit)
    y = to.conv(y, "project", (8, 16, 1, 1))
    x = to.node("Add", [x, y], "sum")
    x = to.clip(to.conv(x, "wide", (12, 8, 3, 3), strides=[2, 2], **around), "wide.act", limit)
    if head == "mean":
        x, features = to.node("GlobalAveragePool", [x], "pool"), 12
    else:
        x, features = to.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2]), 48
    x = to.node("Flatten", [x], "flat")
    x = to.node(
        "Gemm",
        [x, to.weight("hidden.w", 20, features), to.constant("hidden.b", np.zeros(20, np.float32))],
        "hidden",
        transB=1,
    )
    x = to.clip(x, "hidden.act", None)
    x = to.node(
        "MatMul",
        [x, to.constant("last.w", to.random.normal(0, 0.3, (20, 5)).astype(np.float32))],
        "answer",
    )
    return to.save(x, 5, path)


def draw_images(count: int, seed: int = 0) -> Floats:
    """(count, 3, 8, 8), smooth enough that neighbours resemble each other."""
    noise = np.random.default_rng(seed).normal(0.2, 1, (count, *IMAGE))
    return np.asarray(noise + np.roll(noise, 1, axis=2) + np.roll(noise, 1, axis=3), np.float32)
