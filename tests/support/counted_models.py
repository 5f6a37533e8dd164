"""Model files whose work is counted by hand: ONNX by hand, and quantized ones from ONNX Runtime's quantizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from trimtab_compressor.passes.stage import FileStage
from trimtab_compressor.passes.table import FILE_PASSES
from trimtab_compressor.runtimes.port import Kernels
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.specs.base import FileSpec
from trimtab_protocol.manifest import ModelFormat

IMAGE = (1, 8, 8)


def draw(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def write_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, NDArray[Any]],
    *,
    taken: Sequence[object] = ("batch", *IMAGE),
    given: Sequence[object] | None = None,
    opset: int = 17,
) -> Path:
    """A graph from `x` to `y`; a domain of its own for operators that have one."""
    domains = {node.domain for node in nodes if node.domain}
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(taken))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, given)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(row, 1) for row in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def write_image_net(path: Path, *, opset: int = 17) -> Path:
    """Conv 3×3 of 8 (no padding), Relu, depthwise 3×3 (padded), max-pool, flatten, dense 4.

    MACs: 8·6·6·9 = 2592, 8·6·6·9 = 2592, 72·4 = 288. Parameters: 72+8, 72, 288+4.
    """
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "dw.weight"], ["d"], group=8, pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["d"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "dense.weight", "dense.bias"], ["y"], transB=1),
    ]
    constants = {
        "conv.weight": draw(8, 1, 3, 3, seed=1),
        "conv.bias": draw(8, seed=2),
        "dw.weight": draw(8, 1, 3, 3, seed=3),
        "dense.weight": draw(4, 72, seed=4),
        "dense.bias": draw(4, seed=5),
    }
    return write_graph(path, nodes, constants, opset=opset)


def draw_images(count: int = 32) -> NDArray[np.float32]:
    return draw(count, *IMAGE, seed=9)


def quantized(source: Path, target: Path, spec: FileSpec) -> Path:
    """`source` after one pass over files, calibrated on noise."""
    name = open_model(source, Kernels.EXACT).io.inputs[0].name
    stage = FileStage(spec=spec, source=source, target=target, calibration={name: draw_images()})
    FILE_PASSES[(spec.pass_name, ModelFormat(source.suffix[1:]))](stage)
    return target
