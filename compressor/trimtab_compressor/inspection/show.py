"""An inspection as tables for people."""

from __future__ import annotations

from trimtab_compressor.inspection.description import Inspection, LayerDescription
from trimtab_compressor.show import print_facts, print_table
from trimtab_protocol.reading import Reading


def print_inspection(found: Inspection, *, layers: int) -> None:
    """Facts, then layers, operators and passes.

    Args:
        found: What to print.
        layers: How many layers to list; the heaviest ones if there are more.
    """
    print_facts(found.file, _facts(found))
    _print_layers(found, layers)
    print_table(
        "Operators",
        ("operator", "count", "where"),
        [
            (
                f"{row.domain}::{row.operator}" if row.domain else row.operator,
                str(row.count),
                "inner graph" if row.is_inner else "",
            )
            for row in found.operators
        ],
    )
    print_table(
        "Passes",
        ("pass", "can be applied", "why"),
        _pass_rows(found),
    )


def _pass_rows(found: Inspection) -> list[tuple[str, str, str]]:
    """Passes with the same reason share a row."""
    names: dict[tuple[bool, str], list[str]] = {}
    for row in found.passes:
        names.setdefault((row.is_applicable, row.reason), []).append(row.pass_name)
    return [
        (", ".join(rows), "yes" if is_applicable else "no", reason)
        for (is_applicable, reason), rows in names.items()
    ]


def _facts(found: Inspection) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {number}" for name, number in found.versions.items())
    rows = [
        ("format", f"{found.format.value} ({versions}) {found.producer}".rstrip()),
        ("bytes", f"{found.size_bytes:,}  sha256 {found.sha256}"),
    ]
    rows += [("input", _describe_io(row.name, row.dtype, row.shape)) for row in found.inputs]
    rows += [("output", _describe_io(row.name, row.dtype, row.shape)) for row in found.outputs]
    rows.append(
        ("parameters", f"{found.totals.parameters:,} in {found.totals.parameter_bytes:,} bytes")
    )
    rows += [
        (
            "stored as",
            f"{dtype}: {row.elements:,} in {row.tensors} tensors, {row.size_bytes:,} bytes",
        )
        for dtype, row in found.stored.items()
    ]
    rows += [
        ("MACs", show_reading(found.totals.macs)),
        ("peak bytes", f"{show_reading(found.totals.activations_peak_bytes)} (activations)"),
    ]
    rows += [
        (
            "computed as",
            f"{kind.value}: {row.layers} layers, {show_ratio(row.macs_ratio)} of the MACs, "
            f"{show_ratio(row.parameters_ratio)} of the parameters",
        )
        for kind, row in found.arithmetic.items()
    ]
    if found.foreign_operators:
        rows.append(("custom", ", ".join(found.foreign_operators)))
    rows.append(("runs here", _describe_run(found)))
    rows += [("note", note) for note in found.notes]
    return rows


def _describe_io(name: str, dtype: str, shape: tuple[int | str | None, ...]) -> str:
    sizes = ", ".join("?" if size is None else str(size) for size in shape)
    return f"{name} {dtype} [{sizes}]"


def _describe_run(found: Inspection) -> str:
    run = found.runs_here
    if run is None:
        return "not tried"
    if run.runs:
        return f"yes, by {run.runtime}"
    return f"{'loads' if run.loads else 'no'}, by {run.runtime}: {run.reason}"


def _print_layers(found: Inspection, count: int) -> None:
    rows = list(found.layers)
    title = "Layers"
    if len(rows) > count:
        heaviest = sorted(rows, key=lambda row: (row.macs or 0, row.weight_bytes), reverse=True)
        kept = {id(row) for row in heaviest[:count]}
        rows = [row for row in rows if id(row) in kept]
        title = f"The {len(rows)} heaviest of {len(found.layers)} layers (--layers N for more)"
    macs = found.totals.macs.value
    print_table(
        title,
        (
            "layer",
            "kind",
            "weight",
            "shape",
            "stored",
            "computed",
            "parameters",
            "bytes",
            "MACs",
            "share",
        ),
        [_layer_row(row, macs) for row in rows],
    )


def _layer_row(row: LayerDescription, macs: float | None) -> tuple[str, ...]:
    scales = {0: "", 1: " per tensor"}.get(row.scales, " per channel")
    return (
        row.name,
        row.kind.value,
        row.weight or "-",
        "×".join(str(size) for size in row.weight_shape) or "-",
        f"{row.dtype}{scales}" or "-",
        row.arithmetic.value,
        f"{row.parameters:,}",
        f"{row.weight_bytes:,}",
        "?" if row.macs is None else f"{row.macs:,}",
        show_ratio(row.macs / macs if row.macs is not None and macs else None),
    )


def show_ratio(value: float | None) -> str:
    """As percent, "?" if it is not known."""
    return "?" if value is None else f"{value:.1%}"


def show_reading(reading: Reading) -> str:
    """A count, or why there is none."""
    return f"{reading.value:,.0f}" if reading.value is not None else f"absent: {reading.absent}"
