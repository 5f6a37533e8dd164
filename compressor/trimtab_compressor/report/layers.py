"""Compare a candidate's layers with the float file's: weights, and activations on samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.comparison.errors import sqnr_db
from trimtab_compressor.inspection.graph import Layer, LayerKind, ModelGraph
from trimtab_compressor.inspection.inspect_model import read_graph
from trimtab_compressor.inspection.weights import real_weight
from trimtab_compressor.report.capture import activation_of, open_capture
from trimtab_compressor.report.card import HistogramPair, LayerError
from trimtab_compressor.report.histogram import pair_histograms
from trimtab_compressor.runtimes.port import Arrays
from trimtab_protocol.reading import Reading

Kind: TypeAlias = Literal["weights", "activations"]

KEPT_VALUES = 20_000
"""Of each sample's activation, evenly spread: a histogram needs no more."""


@dataclass(frozen=True)
class FileLayers:
    """A file with its layers that have weights."""

    path: Path
    graph: ModelGraph
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, path: Path) -> FileLayers:
        """Read a file.

        Raises:
            ModelError: It cannot be read.
        """
        graph = read_graph(path)
        rows = (row for row in graph.layers if row.weight is not None)
        return cls(path, graph, tuple(row for row in rows if row.kind is not LayerKind.EMBEDDING))


@dataclass
class _Activations:
    """Sums and samples of one layer's activations in both files."""

    signal: float = 0.0
    noise: float = 0.0
    before: list[AnyArray] = field(default_factory=list)
    after: list[AnyArray] = field(default_factory=list)
    reason: str = ""

    def add(self, before: AnyArray, after: AnyArray) -> None:
        if before.shape == after.shape:
            self.signal += float(np.square(before.astype(np.float64)).sum())
            self.noise += float(np.square(before.astype(np.float64) - after).sum())
        else:
            self.reason = "other channels"
        self.before.append(_thin(before))
        self.after.append(_thin(after))

    def error(self) -> Reading:
        if self.reason or not self.before:
            return Reading(absent=self.reason or "no samples were run")
        if not self.signal or not self.noise:
            return Reading(absent="no difference" if self.signal else "all zero")
        return Reading(value=float(10 * np.log10(self.signal / self.noise)))


@dataclass(frozen=True)
class LayerComparison:
    """What was found, or why nothing was."""

    errors: tuple[LayerError, ...] = ()
    histograms: tuple[HistogramPair, ...] = ()
    note: str = ""


def compare_layers(
    candidate: str, base: FileLayers, other: FileLayers, samples: Sequence[Arrays]
) -> LayerComparison:
    """Layer by layer, in the order of the files.

    Args:
        candidate: Its name.
        base: The float file.
        other: The candidate's file, of the same format.
        samples: Inputs by name, one sample each; none to leave activations out.
    """
    if [row.kind for row in base.layers] != [row.kind for row in other.layers]:
        note = "its layers are not those of the float file, so that they are not compared"
        return LayerComparison(note=note)
    activations = _run_samples(base, other, samples)
    errors, histograms = [], []
    shown = choose_layers(base.layers)
    for place, (layer, own) in enumerate(zip(base.layers, other.layers, strict=True)):
        before, after = real_weight(layer), real_weight(own)
        name = layer.name
        errors.append(
            LayerError(
                layer=name,
                weights_db=_weight_error(before, after),
                activations_db=activations[place].error(),
            )
        )
        if place in shown:
            histograms += _draw(candidate, name, (before, after), activations[place])
    return LayerComparison(tuple(errors), tuple(histograms))


def choose_layers(layers: Sequence[Layer]) -> frozenset[int]:
    """The first, the one with most work, and the one with most parameters, by place."""
    if not layers:
        return frozenset()
    places = range(len(layers))
    work = max(places, key=lambda place: layers[place].macs or 0)
    heaviest = max(places, key=lambda place: _elements(layers[place]))
    return frozenset({0, work, heaviest})


def _run_samples(
    base: FileLayers, other: FileLayers, samples: Sequence[Arrays]
) -> list[_Activations]:
    pairs = [
        (activation_of(base.graph, one), activation_of(other.graph, two))
        for one, two in zip(base.layers, other.layers, strict=True)
    ]
    found = [_Activations() for _ in pairs]
    for row, pair in zip(found, pairs, strict=True):
        row.reason = "" if None not in pair else "spread over several operators"
    known = [(row, *pair) for row, pair in zip(found, pairs, strict=True) if None not in pair]
    if not samples or not known:
        return found
    capture = open_capture(base.path, base.graph, [str(one) for _, one, _ in known])
    capture_other = open_capture(other.path, other.graph, [str(two) for _, _, two in known])
    for inputs in samples:
        before, after = capture(inputs), capture_other(inputs)
        for row, one, two in known:
            row.add(before[str(one)], after[str(two)])
    return found


def _draw(
    candidate: str,
    name: str,
    weights: tuple[AnyArray | None, AnyArray | None],
    activations: _Activations,
) -> list[HistogramPair]:
    pairs = []
    before, after = weights
    if before is not None and after is not None:
        pairs.append(_pair(candidate, "weights", name, before, after))
    if activations.before:
        drawn = (np.concatenate(activations.before), np.concatenate(activations.after))
        pairs.append(_pair(candidate, "activations", name, *drawn))
    return pairs


def _pair(candidate: str, what: str, name: str, before: AnyArray, after: AnyArray) -> HistogramPair:
    one, other = pair_histograms(before, after)
    note = "" if before.size == after.size else "the candidate has fewer of them: channels are gone"
    return HistogramPair(
        candidate=candidate,
        what=what,
        layer=name,
        before=one,
        after=other,
        note=note,
    )


def _weight_error(before: AnyArray | None, after: AnyArray | None) -> Reading:
    if before is None or after is None:
        return Reading(absent="its scale is not in the file")
    if before.shape != after.shape:
        after = after.T
    if before.shape != after.shape:
        return Reading(absent="other channels")
    found = sqnr_db(before, after)
    return Reading(absent="the same weights") if found.value is None else found


def _thin(rows: AnyArray) -> AnyArray:
    flat = rows.reshape(-1).astype(np.float32)
    return flat[:: max(1, len(flat) // KEPT_VALUES)]


def _elements(layer: Layer) -> int:
    return layer.weight.elements or 0 if layer.weight is not None else 0
