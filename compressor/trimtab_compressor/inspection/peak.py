"""How much memory the activations take at the worst step.

A tensor is alive from the step that makes it to the last one that takes it; inputs from the start,
outputs to the end. The file's own order of steps is taken, as both runtimes do.
"""

from __future__ import annotations

from trimtab_compressor.inspection.graph import ModelGraph
from trimtab_protocol.reading import Reading

_FUSED = frozenset({"QuantizeLinear", "DequantizeLinear"})


def activations_peak(graph: ModelGraph) -> Reading:
    """In bytes, or the reason why it cannot be said."""
    if any(row.kind in _FUSED for row in graph.operators):
        return Reading(
            absent="the runtime fuses the float tensors between Q/DQ pairs away; "
            "measure it on the device"
        )
    if graph.inner_operators:
        return Reading(absent="the model has inner graphs")
    ends = _last_steps(graph)
    sizes = {}
    for name in ends:
        tensor = graph.tensors.get(name)
        size = tensor.size_bytes if tensor is not None else None
        if size is None:
            return Reading(absent=f"the size of tensor '{name}' is not known")
        sizes[name] = size
    return Reading(value=_walk(graph, ends, sizes))


def _last_steps(graph: ModelGraph) -> dict[str, int]:
    """The last step that needs each tensor that is computed, by name."""
    ends = {row.name: 0 for row in graph.inputs}
    for step, operator in enumerate(graph.operators):
        for name in (*operator.inputs, *operator.outputs):
            tensor = graph.tensors.get(name)
            if name and (tensor is None or not tensor.is_constant):
                ends[name] = step
    return {**ends, **{row.name: len(graph.operators) for row in graph.outputs}}


def _walk(graph: ModelGraph, ends: dict[str, int], sizes: dict[str, int]) -> int:
    alive = {row.name for row in graph.inputs}
    peak = 0
    for step, operator in enumerate(graph.operators):
        alive |= {name for name in operator.outputs if name in sizes}
        peak = max(peak, sum(sizes[name] for name in alive))
        alive = {name for name in alive if ends[name] > step}
    return peak
