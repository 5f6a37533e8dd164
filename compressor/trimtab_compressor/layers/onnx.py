"""The layers of an ONNX file. It is prepared as for a quantizer: constants and batch norms folded."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from trimtab_compressor.arrays import AnyArray, FloatArray
from trimtab_compressor.layers.batches import run_in_batches
from trimtab_compressor.layers.onnx_graph import OnnxGraph, attributes_of, keep_only
from trimtab_compressor.layers.onnx_sites import Site, find_sites, upper_limit
from trimtab_compressor.layers.pairs import Passage, PassageKind, find_pairs
from trimtab_compressor.layers.port import Layer, Pair, Samples, Updates
from trimtab_compressor.passes.onnx_files import prepared
from trimtab_compressor.runtimes.onnxruntime import OnnxRuntimeRunner
from trimtab_compressor.runtimes.port import Arrays, Kernels, fit_samples


class OnnxLayers:
    """A LayerGraph over an ONNX file.

    Args:
        path: A float model; not changed.

    Raises:
        ModelError: `model.unreadable`: ONNX Runtime cannot load it or prepare it.
    """

    def __init__(self, path: Path) -> None:
        self._io = OnnxRuntimeRunner(path, Kernels.DEFAULT).io
        with prepared(path) as ready:
            self._model = onnx.load(ready)
        graph = OnnxGraph(self._model)
        self._graph = graph
        self._sites = {site.layer.name: site for site in find_sites(graph)}
        self.layers: tuple[Layer, ...] = tuple(site.layer for site in self._sites.values())
        self.pairs: tuple[Pair, ...] = find_pairs(self.layers, _passages(graph), graph.readers)

    def capture(
        self, tensors: Sequence[str], samples: Samples, updates: Updates
    ) -> Iterator[dict[str, FloatArray]]:
        """See LayerGraph.capture.

        Raises:
            ConfigError: The samples do not fit the model.
            ModelError: The runtime failed.
        """
        given = fit_samples(self._io, samples, what="calibration samples")
        computed = [name for name in tensors if name not in given]
        start = 0
        for found in self._run(computed, given, updates) if computed else ({},):
            some = found if found else given
            end = start + len(next(iter(some.values())))
            yield found | {name: given[name][start:end] for name in tensors if name in given}
            start = end

    def write(self, updates: Updates, target: Path) -> None:
        """See LayerGraph.write."""
        onnx.save(self._updated(updates), target)

    def _run(
        self, tensors: Sequence[str], given: Arrays, updates: Updates
    ) -> Iterator[dict[str, AnyArray]]:
        model = self._updated(updates)
        keep_only(model, tensors)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "captured.onnx"
            onnx.save(model, path)
            yield from run_in_batches(OnnxRuntimeRunner(path, Kernels.DEFAULT), given)

    def _updated(self, updates: Updates) -> Any:
        model = copy.deepcopy(self._model)
        nodes = {node.name: node for node in model.graph.node}
        for name, update in updates.items():
            site = self._sites[name]
            if update.weight is not None:
                values = update.weight.T if site.is_transposed else update.weight
                _set_input(model, self._graph, nodes[name], 1, values)
            if update.bias is not None:
                _set_bias(model, self._graph, site, nodes, update.bias)
        return model


def _set_input(model: Any, graph: OnnxGraph, node: Any, index: int, values: AnyArray) -> None:
    """Give a node new constant values; a constant that others read too stays as it is for them."""
    old = node.input[index] if index < len(node.input) else ""
    name = old if old and graph.readers[old] == 1 else f"{node.name}.{index}.own"
    kept = [row for row in model.graph.initializer if row.name == name]
    shape = graph.constant(old).shape if old else values.shape  # type: ignore[union-attr]  # a constant, see Site
    fresh = numpy_helper.from_array(np.ascontiguousarray(values, np.float32).reshape(shape), name)
    if kept:
        kept[0].CopyFrom(fresh)
    else:
        model.graph.initializer.append(fresh)
    while len(node.input) <= index:
        node.input.append("")
    node.input[index] = name


def _set_bias(
    model: Any, graph: OnnxGraph, site: Site, nodes: dict[str, Any], bias: FloatArray
) -> None:
    if site.bias_node is not None:
        _set_input(model, graph, nodes[site.bias_node], site.bias_index, bias)
        return
    node = nodes[site.layer.name]
    constant = numpy_helper.from_array(np.asarray(bias, np.float32), f"{site.product}.bias")
    if site.layer.rank == 2:
        # The runtime would fuse a product and an addition into this, under another name.
        node.op_type = "Gemm"
        node.input.append(constant.name)
        model.graph.initializer.append(constant)
        return
    product = f"{site.product}.product"
    node.output[0] = product
    adder = onnx.helper.make_node(
        "Add", [product, constant.name], [site.product], name=f"{site.layer.name}.bias"
    )
    model.graph.initializer.append(constant)
    model.graph.node.insert(list(model.graph.node).index(node) + 1, adder)


def _passages(graph: OnnxGraph) -> dict[str, Passage]:
    found = {}
    for node in graph.nodes:
        read = _PASSAGES.get(node.op_type)
        passage = read(graph, node) if read is not None and len(node.output) == 1 else None
        if passage is not None:
            found[node.input[0]] = passage
    return found


def _keep(graph: OnnxGraph, node: Any) -> Passage | None:  # noqa: ARG001 - one shape for all
    return Passage(PassageKind.KEEP, node.output[0])


def _pad(graph: OnnxGraph, node: Any) -> Passage | None:
    """Padding with zeros, around the spatial axes only."""
    mode = attributes_of(node).get("mode", b"constant")
    pads = graph.constant(node.input[1]) if len(node.input) > 1 else None
    filled = [graph.constant(name) for name in node.input[2:3] if name]
    is_zero = all(value is not None and not value.any() for value in filled)
    if mode != b"constant" or pads is None or not is_zero or len(node.input) > 3:
        return None
    begins, ends = np.split(pads, 2)
    return None if begins[:2].any() or ends[:2].any() else _keep(graph, node)


def _clip(graph: OnnxGraph, node: Any) -> Passage | None:
    limit = upper_limit(graph, node)
    return None if limit is None else Passage(PassageKind.CLIP, node.output[0], limit=limit)


def _mean(graph: OnnxGraph, node: Any) -> Passage | None:
    attributes = attributes_of(node)
    axes = attributes.get("axes")
    if len(node.input) > 1:
        values = graph.constant(node.input[1])
        axes = None if values is None else values.reshape(-1).tolist()
    shape = graph.shape(node.input[0])
    if not axes or shape is None:
        return None
    positive = tuple(sorted(axis % len(shape) for axis in axes))
    if set(positive) & {0, 1}:
        return None
    if attributes.get("keepdims", 1):
        return _keep(graph, node)
    return Passage(PassageKind.REMOVE, node.output[0], axes=positive)


def _transpose(graph: OnnxGraph, node: Any) -> Passage | None:  # noqa: ARG001 - one shape for all
    axes = attributes_of(node).get("perm")
    return axes and Passage(PassageKind.TRANSPOSE, node.output[0], axes=tuple(axes))


def _flatten(graph: OnnxGraph, node: Any) -> Passage | None:
    """Whatever leaves (n, everything else), by its shapes."""
    before, after = graph.shape(node.input[0]), graph.shape(node.output[0])
    if before is None or after is None or len(after) != 2:
        return None
    shape = tuple(size for size in before[1:] if size is not None)
    if len(shape) != len(before) - 1 or after[1] != int(np.prod(shape)):
        return None
    return Passage(PassageKind.FLATTEN, node.output[0], shape=shape)


_PASSAGES: dict[str, Callable[[OnnxGraph, Any], Passage | None]] = {
    "Relu": _keep,
    "LeakyRelu": _keep,
    "Identity": _keep,
    "Dropout": _keep,
    "MaxPool": _keep,
    "AveragePool": _keep,
    "GlobalAveragePool": _keep,
    "GlobalMaxPool": _keep,
    "Pad": _pad,
    "Clip": _clip,
    "ReduceMean": _mean,
    "Transpose": _transpose,
    "Flatten": _flatten,
    "Reshape": _flatten,
    "Squeeze": _flatten,
}
