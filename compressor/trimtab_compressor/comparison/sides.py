"""What one of two compared files is made of. Pure."""

from __future__ import annotations

from collections import Counter

from trimtab_compressor.comparison.report import SideReport
from trimtab_compressor.inspection.description import Inspection, OperatorCount
from trimtab_compressor.inspection.graph import INTEGER_ARITHMETIC
from trimtab_protocol.reading import Reading

_SMALL_INTEGERS = frozenset({"int8", "uint8", "int4", "uint4", "int2"})


def report_side(found: Inspection, exact: Reading, on_host: Reading) -> SideReport:
    """One file."""
    floats = Counter(
        row.operator
        for row in found.layers
        if row.arithmetic not in INTEGER_ARITHMETIC and row.macs != 0
    )
    return SideReport(
        file=found.file,
        format=found.format,
        sha256=found.sha256,
        size_bytes=found.size_bytes,
        parameters=found.totals.parameters,
        macs=found.totals.macs,
        arithmetic={kind: share.layers for kind, share in found.arithmetic.items()},
        int8_macs_ratio=int8_macs_ratio(found),
        int8_parameters_ratio=sum(
            row.elements for dtype, row in found.stored.items() if dtype in _SMALL_INTEGERS
        )
        / max(1, found.totals.parameters),
        float_operators=tuple(
            OperatorCount(operator=kind, domain="", count=count)
            for kind, count in sorted(floats.items(), key=lambda row: (-row[1], row[0]))
        ),
        accuracy_exact=exact,
        accuracy_on_host=on_host,
    )


def int8_macs_ratio(found: Inspection) -> Reading:
    """Share of the multiplications that are of integers, or why it is not known."""
    macs = found.totals.macs
    if macs.value is None:
        return Reading(absent=macs.absent)
    if not macs.value:
        return Reading(absent="the model has no layer that multiplies")
    shares = (found.arithmetic.get(kind) for kind in INTEGER_ARITHMETIC)
    return Reading(value=sum(row.macs_ratio or 0.0 for row in shares if row is not None))
