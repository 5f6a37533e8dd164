"""Reading an ONNX graph: constants, shapes, who reads what, and what a run of some tensors needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import onnx
from onnx import numpy_helper

from trimtab_compressor.arrays import AnyArray


class OnnxGraph:
    """Look-ups over a model that is not changed while this is used.

    Args:
        model: With inferred shapes.
    """

    def __init__(self, model: Any) -> None:
        graph = model.graph
        self.nodes: list[Any] = list(graph.node)
        self.inputs = {row.name for row in graph.input}
        self.outputs = {row.name for row in graph.output}
        self._constants = {row.name: row for row in graph.initializer}
        self._shapes = {
            row.name: _shape(row) for row in (*graph.input, *graph.value_info, *graph.output)
        }
        reads = [name for node in graph.node for name in reads_of(node)]
        self.readers = Counter([*reads, *self.outputs])

    def constant(self, name: str) -> AnyArray | None:
        """The values of a constant, or None if it is none."""
        row = self._constants.get(name)
        return None if row is None else numpy_helper.to_array(row)

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """The shape of a tensor, None for a free axis; None altogether if it is unknown."""
        return self._shapes.get(name)

    def only_reader(self, name: str) -> Any | None:
        """The node that reads a tensor, if nothing else does."""
        if self.readers[name] != 1 or name in self.outputs:
            return None
        return next((node for node in self.nodes if name in node.input), None)


def attributes_of(node: Any) -> dict[str, Any]:
    """A node's attributes as plain values."""
    return {row.name: onnx.helper.get_attribute_value(row) for row in node.attribute}


def reads_of(node: Any) -> Iterable[str]:
    """Every tensor that a node reads, also in its inner graphs."""
    yield from (name for name in node.input if name)
    for row in node.attribute:
        graphs = [row.g] if row.HasField("g") else list(row.graphs)
        for graph in graphs:
            yield from (name for inner in graph.node for name in reads_of(inner))


def keep_only(model: Any, tensors: Iterable[str]) -> None:
    """Make these the outputs of a model, and remove what they do not need."""
    wanted = list(tensors)
    needed, kept = set(wanted), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(reads_of(node))
    kept.reverse()
    constants = [row for row in model.graph.initializer if row.name in needed]
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in wanted
    ]
    for field, rows in (("node", kept), ("initializer", constants), ("output", outputs)):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(rows)
    model.graph.ClearField("value_info")


def _shape(row: Any) -> tuple[int | None, ...] | None:
    if not row.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        axis.dim_value if axis.HasField("dim_value") else None
        for axis in row.type.tensor_type.shape.dim
    )
