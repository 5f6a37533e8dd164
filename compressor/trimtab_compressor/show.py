"""What people see: progress on stderr, tables on standard output."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from trimtab_compressor.fit_report import CandidateReport, ClassReport, FitReport
from trimtab_compressor.recipe import Recipe
from trimtab_compressor.rescue.report import RescueReport, SettingResult
from trimtab_compressor.run_report import CandidateResult, RunReport
from trimtab_protocol.manifest import Quality
from trimtab_protocol.reading import Reading

PLAIN_WIDTH = 160


def tell(line: str) -> None:
    """One line of progress, dimmed on a terminal."""
    if sys.stderr.isatty():
        from rich.console import Console  # noqa: PLC0415 - only for terminals

        Console(stderr=True).print(line, style="dim", markup=False, highlight=False)
    else:
        print(line, file=sys.stderr, flush=True)


def print_recipes(recipes: Mapping[str, Recipe]) -> None:
    """Name, formats, passes, summary."""
    rows = [
        (
            recipe.name,
            " ".join(model_format.value for model_format in recipe.file_passes),
            " > ".join(spec.pass_name for spec in recipe.network_passes) or "-",
            recipe.summary,
        )
        for recipe in recipes.values()
    ]
    print_table(
        "Recipes, gentlest first", ("recipe", "formats", "network passes", "what it does"), rows
    )


def print_built(report: RunReport) -> None:
    """One line per candidate, then what its passes note."""
    rows = [
        (
            row.recipe,
            row.format.value,
            f"{row.size_bytes:,}",
            f"{row.compressed_bytes:,}",
            *_qualities(row.quality),
            _count(_macs(row)),
            f"{row.seconds:.1f}",
        )
        for row in report.candidates
    ]
    heads = (
        *("recipe", "format", "bytes", "zlib bytes", "exact", "on host", "drop", "MACs"),
        "seconds",
    )
    metrics = {row.quality.metric.replace("_", " ") for row in report.candidates}
    print_table(f"Candidates of {report.task}: {' and '.join(sorted(metrics))}", heads, rows)
    for row in report.candidates:
        for note in row.notes():
            print(f"{row.recipe} ({row.format.value}): {note}")


def print_steps(report: RunReport) -> None:
    """One line per intermediate of every candidate."""
    rows = [
        (
            f"{row.recipe} ({row.format.value})" if number == 0 else "",
            step.name,
            "-" if step.accuracy is None else f"{step.accuracy:.4f}",
            "-" if step.on_host is None else f"{step.on_host:.4f}",
            _count(step.parameter_count),
            _count(step.macs),
            _count(step.size_bytes),
            "-" if step.seconds is None else f"{step.seconds:.1f}",
        )
        for row in report.candidates
        for number, step in enumerate(row.steps)
    ]
    heads = ("candidate", "after", "exact", "on host", "parameters", "MACs", "bytes", "seconds")
    print_table(f"Steps of {report.task}", heads, rows)


def _macs(candidate: CandidateResult) -> int | None:
    """Of the network that was exported, if there was one."""
    counts = [step.macs for step in candidate.steps if step.macs is not None]
    return counts[-1] if counts else None


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def print_rescue(report: RescueReport) -> None:
    """One line per setting that was tried, by format, then what was enough."""
    for row in report.formats:
        first = ("fp32", "", f"{row.float_accuracy:.4f}", "", "", _count(row.float_bytes), "", "")
        rows: list[tuple[str, ...]] = [first]
        rows += [_rescue_row(setting) for setting in row.settings]
        metric = row.metric.replace("_", " ")
        heads = ("rung", "passes", "exact", "on host", "drop", "bytes", "seconds", "")
        title = f"{report.subject} ({row.format.value}): {metric} of {row.samples} samples"
        print_table(title, heads, rows)
        allowed = f"{report.max_drop_points:g} points"
        print(
            f"enough: {row.enough}, within {allowed} ({row.file})"
            if row.enough
            else f"no rung keeps the drop within {allowed}"
        )


def _rescue_row(row: SettingResult) -> tuple[str, ...]:
    if row.accuracy is None:
        return (row.rung, " > ".join(row.passes), "-", "-", "-", "-", "-", row.reason)
    return (
        row.rung,
        " > ".join(row.passes),
        f"{row.accuracy:.4f}",
        "-" if row.on_host is None else f"{row.on_host:.4f}",
        f"{row.drop_points:.2f}",
        _count(row.size_bytes),
        f"{row.seconds:.1f}",
        "kept" if row.is_kept else "dropped",
    )


def print_fit(report: FitReport) -> None:
    """One line per candidate and class, then the choice."""
    rows = [
        _fit_row(candidate, row)
        for candidate in _all_candidates(report)
        for row in candidate.classes or (None,)
    ]
    heads = (
        "recipe",
        "format",
        "artifact",
        "bytes",
        "exact",
        "drop",
        "class",
        "p50 ms",
        "p90 ms",
        "verdict",
    )
    print_table(f"Fit of {report.name}", heads, rows)
    if report.chosen is not None:
        print(
            f"chosen: {report.chosen.recipe} ({report.chosen.format.value}) {report.chosen.artifact}"
        )
    if report.rollout_id is not None and report.rollout_state is not None:
        print(
            f"rollout: {report.rollout_id} {report.rollout_state.value} {report.rollout_reason}".rstrip()
        )


def _all_candidates(report: FitReport) -> list[CandidateReport]:
    is_base_listed = any(row == report.base for row in report.candidates)
    return list(report.candidates) if is_base_listed else [report.base, *report.candidates]


def _fit_row(candidate: CandidateReport, row: ClassReport | None) -> tuple[str, ...]:
    latency = row.measurement.latency if row is not None and row.measurement is not None else None
    exact, _, drop = _qualities(candidate.quality)
    return (
        candidate.recipe,
        candidate.format.value,
        str(candidate.artifact) if candidate.artifact else "-",
        f"{candidate.size_bytes:,}" if candidate.size_bytes is not None else "-",
        exact,
        drop,
        row.device_class if row is not None else "-",
        _figure(latency.p50_ms if latency else None),
        _figure(latency.p90_ms if latency else None),
        f"{row.verdict.outcome.value}: {row.verdict.reason}"
        if row is not None
        else candidate.reason,
    )


def _figure(reading: Reading | None) -> str:
    return f"{reading.value:.4g}" if reading is not None and reading.value is not None else "-"


def _qualities(quality: Quality | None) -> tuple[str, str, str]:
    if quality is None:
        return "-", "-", "-"
    figures = (quality.exact, quality.on_host, quality.drop())
    exact, on_host, drop = ("-" if value is None else f"{value:.4f}" for value in figures)
    return exact, on_host, drop


def print_facts(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """A title, then one line per fact."""
    print(title)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def print_table(title: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table by rich; on a pipe as wide as PLAIN_WIDTH."""
    from rich.console import Console  # noqa: PLC0415 - not for --help
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=title)
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, markup=False).print(table)
