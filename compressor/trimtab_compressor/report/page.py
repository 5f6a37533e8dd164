"""The page: HTML that is also well-formed XML, with its style inside and nothing outside.

It shows the card's figures and computes none. Texts from outside are escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trimtab_compressor.compressed import COMPRESSOR
from trimtab_compressor.report.card import CardCandidate, HistogramPair, LayerError, ModelCard
from trimtab_compressor.report.markup import (
    STYLE,
    bullets,
    escape,
    figure,
    join_scalars,
    show_count,
    show_ratio,
    show_reading,
    table,
)
from trimtab_compressor.report.svg import Dot, draw_bars, draw_dots, draw_histograms
from trimtab_protocol.manifest import PassRecord


def render_card(card: ModelCard) -> str:
    """The whole page."""
    parts = [
        *_head(card),
        *_summary(card),
        *_plots(card),
        *_sensitivities(card),
        *_errors(card),
        *_histograms(card),
        *_lineages(card),
        *_conditions(card),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>Model card of {escape(card.task)}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _head(card: ModelCard) -> Iterator[str]:
    yield f"<h1>Model card of {escape(card.task)}</h1>"
    count = len(card.candidates)
    failed = f", {len(card.failures)} could not be made" if card.failures else ""
    yield (
        f"<p>{count} candidates were made and judged{failed}. Every figure was measured on the "
        "exported file by the runtime that it is for, or is absent with its reason; what a model "
        "takes on a device, only the device can say.</p>"
    )
    if not card.is_complete:
        yield "<p><strong>This run was interrupted</strong>; run it again to go on.</p>"


def _summary(card: ModelCard) -> Iterator[str]:
    yield "<h2>Evaluation</h2>"
    qualities = [row.result.quality for row in card.candidates]
    metrics = sorted({row.metric.replace("_", " ") for row in qualities})
    cpus = sorted({row.host_cpu for row in qualities if row.host_cpu})
    yield (
        f"<p>Accuracy is {escape(' or '.join(metrics) or 'absent')}. <em>Exact</em>: the arithmetic as "
        f"written in the file. <em>This CPU</em>: the default kernels of {escape(', '.join(cpus))}. "
        "Drop is from the float file of the same format, by the exact figure. Best: no other "
        f"candidate is both as accurate and as small (or as little work). Compressed: {COMPRESSOR}.</p>"
    )
    heads = (
        *("no.", "recipe", "format", "samples", "exact", "this CPU", "drop", "bytes", "compressed"),
        *("parameters", "MACs", "integer MACs", "best"),
    )
    yield table("Candidates", heads, _summary_rows(card), numbers=3)
    notes = [
        f"{row.name}: {note}"
        for row in card.candidates
        for note in (row.note, *row.result.notes())
        if note
    ]
    notes += [f"{row.recipe} ({row.format.value}): {row.reason}" for row in card.failures]
    if notes:
        yield bullets(notes)


def _summary_rows(card: ModelCard) -> list[tuple[str, ...]]:
    return [(str(place), *_summary_row(row)) for place, row in enumerate(card.candidates, 1)]


def _summary_row(row: CardCandidate) -> tuple[str, ...]:
    quality = row.result.quality
    marks = [
        word
        for word, is_best in (("size", row.is_best_for_size), ("work", row.is_best_for_macs))
        if is_best
    ]
    return (
        row.result.recipe,
        row.result.format.value,
        str(quality.samples),
        show_ratio(quality.exact),
        show_ratio(quality.on_host),
        show_ratio(quality.drop()),
        f"{row.result.size_bytes:,}",
        f"{row.result.compressed_bytes:,}",
        "-" if row.parameters is None else f"{row.parameters:,}",
        show_reading(row.macs, ",.0f"),
        show_reading(row.int8_macs_ratio, ".1%"),
        ", ".join(marks) or "-",
    )


def _plots(card: ModelCard) -> Iterator[str]:
    yield "<h2>Accuracy against cost</h2>"
    formats = sorted({row.result.format.value for row in card.candidates})
    sizes = [
        _dot(card, row, row.result.size_bytes, row.is_best_for_size) for row in card.candidates
    ]
    works = [_dot(card, row, row.macs.value, row.is_best_for_macs) for row in card.candidates]
    yield from _plot(
        sizes,
        "Accuracy against size",
        "bytes of the file (logarithmic)",
        formats,
        "Nothing is both as small and as accurate as the filled marks on the dashed line. Numbers are "
        "those of the table.",
    )
    yield from _plot(
        works,
        "Accuracy against work",
        "MACs of one sample (logarithmic)",
        formats,
        "Quantization leaves the number of MACs as it is.",
    )


def _dot(card: ModelCard, row: CardCandidate, cost: float | None, is_on_front: bool) -> Dot | None:
    """A point whose label is the candidate's number; None where a figure is absent."""
    if not cost or row.accuracy is None:
        return None
    formats = sorted({other.result.format.value for other in card.candidates})
    number = card.candidates.index(row) + 1
    group = formats.index(row.result.format.value)
    return Dot(float(cost), row.accuracy, str(number), group, is_on_front)


def _plot(
    dots: Sequence[Dot | None], title: str, x_title: str, formats: Sequence[str], caption: str
) -> Iterator[str]:
    known = [dot for dot in dots if dot is not None]
    if not known:
        yield f"<p>{escape(title)}: no candidate has both figures.</p>"
        return
    plot = draw_dots(known, title=title, x_title=x_title, y_title="accuracy, exact", groups=formats)
    yield figure(plot, f"{title}. {caption}")


def _lineages(card: ModelCard) -> Iterator[str]:
    yield "<h2>Lineage</h2>"
    for row in card.candidates:
        result = row.result
        yield f"<h3>{escape(row.name)}</h3>"
        base = f" Base: <code>{escape(result.base_sha256)}</code>." if result.base_sha256 else ""
        yield (
            f"<p>File {escape(result.file)}, SHA-256 <code>{escape(row.sha256 or 'not known')}</code>."
            f"{base}</p>"
        )
        yield table(
            "Passes, in order",
            ("pass", "parameters", "found out", "seconds"),
            [_pass_row(record) for record in result.passes],
            numbers=3,
        )
        if result.steps:
            yield table(
                "Every step, evaluated",
                ("after", "exact", "this CPU", "parameters", "MACs", "bytes"),
                [
                    (
                        step.name,
                        show_ratio(step.accuracy),
                        show_ratio(step.on_host),
                        show_count(step.parameter_count),
                        show_count(step.macs),
                        show_count(step.size_bytes),
                    )
                    for step in result.steps
                ],
                numbers=1,
            )


def _pass_row(record: PassRecord) -> tuple[str, ...]:
    return (
        record.name,
        join_scalars(record.parameters) or "none",
        join_scalars(record.findings) or "-",
        "-" if record.seconds is None else f"{record.seconds:.1f}",
    )


def _sensitivities(card: ModelCard) -> Iterator[str]:
    if not card.sensitivities:
        return
    yield "<h2>Sensitivity</h2>"
    yield (
        "<p>Each layer alone is quantized to int8 (static, per channel), and the file is run by the "
        "exact arithmetic. Signal over noise of the outputs in decibels; where labels are known, the "
        "accuracy that is lost, in points. The most sensitive layer comes first: keep it in float "
        "first.</p>"
    )
    for row in card.sensitivities:
        bars = [
            (layer.layer, max(layer.sqnr_db, 0.0), f"{layer.sqnr_db:.1f}{_points(layer.drop)}")
            for layer in row.layers
        ]
        caption = f"{row.file}, {row.samples} samples"
        if row.left_in_float:
            caption += f"; not quantized: {', '.join(row.left_in_float)}"
        title = f"Sensitivity of the layers of {row.file}"
        yield figure(draw_bars(bars, title=title, unit="dB, lower is more sensitive"), caption)


def _points(drop: float | None) -> str:
    return "" if drop is None else f" ({100 * drop:+.1f} points lost)"


def _errors(card: ModelCard) -> Iterator[str]:
    rows = [row for row in card.candidates if row.errors]
    if not rows:
        return
    yield "<h2>Layer by layer</h2>"
    yield (
        "<p>Signal over noise in decibels, against the float file: 10 log<sub>10</sub>(Σa² / Σ(a − "
        "b)²); 20 dB is an error of a tenth. A low bar is where most is lost. Activations hold all "
        "errors of the layers before.</p>"
    )
    for row in rows:
        yield f"<h3>{escape(row.name)}</h3>"
        yield from _error_bars(row.name, row.errors, "activations")
        yield from _error_bars(row.name, row.errors, "weights")


def _error_bars(name: str, errors: Sequence[LayerError], what: str) -> Iterator[str]:
    readings = [
        (row.layer, row.activations_db if what == "activations" else row.weights_db)
        for row in errors
    ]
    bars = [
        (layer, max(found.value, 0.0), f"{found.value:.1f}")
        for layer, found in readings
        if found.value is not None
    ]
    if bars:
        title = f"{name}: {what} by layer"
        yield figure(
            draw_bars(bars, title=title, unit="dB, higher is nearer"), f"{what} of {name}, by layer"
        )
    absent = {found.absent for _, found in readings if found.absent is not None}
    if absent:
        missing = sum(found.value is None for _, found in readings)
        yield f"<p>{what}: no figure for {missing} of {len(readings)} ({escape('; '.join(sorted(absent)))}).</p>"


def _histograms(card: ModelCard) -> Iterator[str]:
    if not card.histograms:
        return
    yield "<h2>Weights and activations, before and after</h2>"
    samples = card.activation_samples
    ran = (
        f"activations come from {samples} calibration samples" if samples else "no samples were run"
    )
    yield (
        "<p>Filled: the float file. Outlined: the candidate, dequantized from its file. Shown are the "
        "first layer, the one with most work and the one with most parameters; "
        f"{ran}. Heights are square roots of the shares, so that many zeros do not hide the rest.</p>"
    )
    names = dict.fromkeys(row.candidate for row in card.histograms)
    for name in names:
        yield f"<h3>{escape(name)}</h3>"
        plots = "".join(_histogram(row) for row in card.histograms if row.candidate == name)
        yield f'<div class="grid">{plots}</div>'


def _histogram(row: HistogramPair) -> str:
    title = f"{row.what} of {row.layer} in {row.candidate}"
    plot = draw_histograms(
        row.before.shares, row.after.shares, row.before.low, row.before.high, title=title
    )
    note = f" ({row.note})" if row.note else ""
    return figure(plot, f"{row.what} of {row.layer}{note}")


def _conditions(card: ModelCard) -> Iterator[str]:
    yield "<h2>Conditions</h2>"
    rows = [("seed", "-" if card.seed is None else str(card.seed))]
    rows += [(f"version of {name}", number) for name, number in sorted(card.tools.items())]
    rows += [
        (f"SHA-256 of {name} data", digest) for name, digest in sorted(card.data_sha256.items())
    ]
    yield table("What it depends on", ("what", "value"), rows, numbers=99)
