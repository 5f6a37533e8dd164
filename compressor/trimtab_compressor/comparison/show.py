"""A comparison as tables for people."""

from __future__ import annotations

from trimtab_compressor.comparison.report import Comparison, OutputReport, SideReport
from trimtab_compressor.inspection.show import show_ratio, show_reading
from trimtab_compressor.show import print_facts, print_table
from trimtab_protocol.reading import Reading


def print_comparison(found: Comparison) -> None:
    """The two files, then each output."""
    print_table(
        "What they are",
        ("", f"A: {found.a.file}", f"B: {found.b.file}"),
        [
            (name, one, other)
            for (name, one), (_, other) in zip(_facts(found.a), _facts(found.b), strict=True)
        ],
    )
    print_table(
        "B's outputs beside A's",
        (
            *("A", "B", "kernels", "largest error", "mean error", "range of A", "cosine"),
            *("SQNR dB", "same answer"),
        ),
        [_output_row(row) for row in found.outputs],
    )
    facts = [
        ("data", f"{found.samples} samples: {found.data}"),
        ("layout", found.layout),
        ("bytes", f"B is {found.size_ratio:.3f} of A"),
    ]
    if found.latency is not None:
        ratio, interval = found.latency.ratio.value, found.latency.ratio.interval
        assert interval is not None
        facts.append(
            (
                "latency",
                f"B takes {ratio:.3f} of A's time ({interval.low:.3f} to {interval.high:.3f}; "
                f"{found.latency.b_p50_ms:.4g} and {found.latency.a_p50_ms:.4g} ms, one thread, "
                f"{found.latency.host_cpu}); what a device takes, only the device says",
            )
        )
    facts += [("note", note) for note in found.notes]
    print_facts("Conditions", facts)


def _facts(side: SideReport) -> list[tuple[str, str]]:
    floats = ", ".join(f"{row.count} {row.operator}" for row in side.float_operators)
    layers = ", ".join(f"{count} {kind.value}" for kind, count in side.arithmetic.items())
    return [
        ("bytes", f"{side.size_bytes:,}"),
        ("parameters", f"{side.parameters:,}"),
        ("MACs", show_reading(side.macs)),
        ("layers", layers or "none"),
        ("MACs of integers", _share(side.int8_macs_ratio)),
        ("parameters of integers", show_ratio(side.int8_parameters_ratio)),
        ("layers left in float", floats or "none"),
        ("accuracy, exact", _figure(side.accuracy_exact, ".4f")),
        ("accuracy, this CPU", _figure(side.accuracy_on_host, ".4f")),
    ]


def _output_row(row: OutputReport) -> tuple[str, ...]:
    return (
        row.a,
        row.b,
        row.kernels,
        f"{row.max_abs_error:.4g}",
        f"{row.mean_abs_error:.4g}",
        f"{row.value_range:.4g}",
        f"{row.cosine:.5f}",
        _figure(row.sqnr_db, ".1f"),
        _share(row.same_answer_ratio),
    )


def _figure(reading: Reading, form: str) -> str:
    return format(reading.value, form) if reading.value is not None else f"- ({reading.absent})"


def _share(reading: Reading) -> str:
    return f"{reading.value:.1%}" if reading.value is not None else f"- ({reading.absent})"
