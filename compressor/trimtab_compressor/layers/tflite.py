"""The layers of a TFLite file. Activations are NHWC, weights OHWI or (depthwise) 1HWO."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimtab_compressor.arrays import FloatArray
from trimtab_compressor.layers.batches import run_in_batches
from trimtab_compressor.layers.pairs import Passage, PassageKind, find_pairs
from trimtab_compressor.layers.port import Layer, LayerKind, Pair, Samples, Updates
from trimtab_compressor.layers.tflite_graph import TfliteGraph
from trimtab_compressor.layers.tflite_sites import FUSED_LIMITS, Site, find_sites
from trimtab_compressor.runtimes.litert import LitertRunner
from trimtab_compressor.runtimes.port import Kernels, fit_samples


class TfliteLayers:
    """A LayerGraph over a TFLite file.

    Args:
        path: A float model; not changed.

    Raises:
        ModelError: `model.unreadable`: LiteRT cannot load it.
    """

    def __init__(self, path: Path) -> None:
        self._io = LitertRunner(path, Kernels.DEFAULT).io
        self._content = path.read_bytes()
        graph = TfliteGraph(self._content)
        self._sites = {site.layer.name: site for site in find_sites(graph)}
        self.layers: tuple[Layer, ...] = tuple(site.layer for site in self._sites.values())
        self.pairs: tuple[Pair, ...] = _find_pairs(graph, self._sites.values())

    def capture(
        self, tensors: Sequence[str], samples: Samples, updates: Updates
    ) -> Iterator[dict[str, FloatArray]]:
        """See LayerGraph.capture.

        Raises:
            ConfigError: The samples do not fit the model.
            ModelError: The runtime failed.
        """
        given = fit_samples(self._io, samples, what="calibration samples")
        graph = self._updated(updates)
        computed = {f"captured.{graph.index_of[name]}": name for name in tensors}
        for label, name in computed.items():
            if name not in given:
                graph.main.tensors[graph.index_of[name]].name = label.encode()
        graph.keep_only(graph.index_of[name] for name in tensors)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "captured.tflite"
            graph.pack(path)
            for found in run_in_batches(LitertRunner(path, Kernels.DEFAULT), given):
                yield {computed.get(label, label): rows for label, rows in found.items()}

    def write(self, updates: Updates, target: Path) -> None:
        """See LayerGraph.write."""
        self._updated(updates).pack(target)

    def _updated(self, updates: Updates) -> TfliteGraph:
        graph = TfliteGraph(self._content)
        for name, update in updates.items():
            site = self._sites[name]
            operator = graph.main.operators[site.operator]
            if update.weight is not None:
                stored = update.weight
                if site.layer.kind is not LayerKind.DENSE:
                    stored = np.transpose(stored, site.stored_axes)
                graph.set_constant(operator, 1, stored)
            if update.bias is not None:
                graph.set_constant(operator, 2, update.bias)
        return graph


def _find_pairs(graph: TfliteGraph, sites: Collection[Site]) -> tuple[Pair, ...]:
    """A fused function becomes an operator of its own, from `Layer.output` to the real output."""
    passages: dict[str, Passage] = {}
    readers = Counter({graph.names[index]: count for index, count in graph.readers.items()})
    for operator in graph.main.operators:
        read = _PASSAGES.get(graph.kind(operator))
        passage = read(graph, operator) if read is not None else None
        if passage is not None:
            passages[graph.names[int(operator.inputs[0])]] = passage
    for site in sites:
        readers[site.layer.output] = readers.get(site.layer.output, 0) or 1
        if site.fused in FUSED_LIMITS:
            passages[site.layer.output] = _pass(site.real_output, FUSED_LIMITS[site.fused])
    return find_pairs([site.layer for site in sites], passages, readers)


def _pass(target: str, limit: float) -> Passage:
    kind = PassageKind.KEEP if np.isinf(limit) else PassageKind.CLIP
    return Passage(kind, target, limit=limit)


def _target(graph: TfliteGraph, operator: Any) -> str:
    return graph.names[int(operator.outputs[0])]


def _keep(graph: TfliteGraph, operator: Any) -> Passage:
    return Passage(PassageKind.KEEP, _target(graph, operator))


def _clip(graph: TfliteGraph, operator: Any) -> Passage:
    return Passage(PassageKind.CLIP, _target(graph, operator), limit=6.0)


def _pool(graph: TfliteGraph, operator: Any) -> Passage | None:
    limit = FUSED_LIMITS.get(operator.builtinOptions.fusedActivationFunction)
    is_plain = operator.builtinOptions.fusedActivationFunction == 0
    if not is_plain and limit is None:
        return None
    return _keep(graph, operator) if limit is None else _pass(_target(graph, operator), limit)


def _axes(graph: TfliteGraph, operator: Any) -> tuple[int, ...] | None:
    values = graph.constant(int(operator.inputs[1]))
    rank = len(graph.shape(int(operator.inputs[0])))
    return None if values is None else tuple(int(axis) % rank for axis in values.reshape(-1))


def _mean(graph: TfliteGraph, operator: Any) -> Passage | None:
    axes = _axes(graph, operator)
    rank = len(graph.shape(int(operator.inputs[0])))
    if not axes or rank != 4 or set(axes) != {1, 2}:
        return None
    if operator.builtinOptions.keepDims:
        return _keep(graph, operator)
    return Passage(PassageKind.REMOVE, _target(graph, operator), axes=tuple(sorted(axes)))


def _transpose(graph: TfliteGraph, operator: Any) -> Passage | None:
    axes = _axes(graph, operator)
    if axes is None:
        return None
    return Passage(PassageKind.TRANSPOSE, _target(graph, operator), axes=axes)


def _flatten(graph: TfliteGraph, operator: Any) -> Passage | None:
    before = graph.shape(int(operator.inputs[0]))
    after = graph.shape(int(operator.outputs[0]))
    if len(after) != 2 or before[:1] != after[:1]:
        return None
    return Passage(PassageKind.FLATTEN, _target(graph, operator), shape=before[1:])


_PASSAGES: dict[str, Callable[[TfliteGraph, Any], Passage | None]] = {
    "RELU": _keep,
    "LEAKY_RELU": _keep,
    "RELU6": _clip,
    "MAX_POOL_2D": _pool,
    "AVERAGE_POOL_2D": _pool,
    "PAD": _keep,  # always with zeros
    "MEAN": _mean,
    "TRANSPOSE": _transpose,
    "RESHAPE": _flatten,
}
