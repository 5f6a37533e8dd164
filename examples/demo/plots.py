"""Three plots as inline SVG: dots with intervals, accuracy against latency, sizes as bars."""

from __future__ import annotations

import html
from collections.abc import Iterator

from result import CandidateOnClass, DemoCandidate, DemoResult

from trimtab_protocol.budget import Metric

WIDTH, ROW, LEFT, RIGHT = 860, 26, 300, 40
PLOT_HEIGHT = 320
INK, GOOD, LIMIT = "currentColor", "#0a7d4f", "#b3261e"


def plot_latency(result: DemoResult, device_class: str) -> str:
    """p90 with its interval per candidate, and the budget as a line."""
    rows = list(_measured(result, device_class))
    limit = result.budgets[device_class].limits.get(Metric.P90_MS)
    highest = max([_high(one) for _, one in rows] + [limit or 0.0]) * 1.05 or 1.0
    height = ROW * (len(rows) + 3)
    parts = [_text(LEFT, 18, f"{device_class}: p90 in ms, with 95 % interval", bold=True)]
    for number, (candidate, one) in enumerate(rows):
        y = ROW * (number + 2)
        parts += _dot_row(candidate, one, y, highest)
    if limit is not None:
        x = _x(limit, highest)
        parts.append(_line(x, ROW, x, height - ROW, LIMIT, dashed=True))
        parts.append(_text(x + 4, ROW + 8, f"budget {limit:.4f}", colour=LIMIT))
    return _svg(height, parts)


def plot_accuracy(result: DemoResult, device_class: str) -> str:
    """Accuracy of the exported file against p90; up and left is better."""
    rows = [row for row in _measured(result, device_class) if _accuracy(row[0]) is not None]
    if not rows:
        return ""
    accuracies = [_accuracy(candidate) or 0.0 for candidate, _ in rows]
    low, high = min(accuracies) - 0.001, max(accuracies) + 0.001
    widest = max(_high(one) for _, one in rows) * 1.1 or 1.0
    parts = [_text(60, 18, f"{device_class}: accuracy against p90 in ms", bold=True)]
    for number, (candidate, one) in enumerate(rows):
        reading = one.measurement.latency.p90_ms if one.measurement else None
        x = 60 + (WIDTH - 260) * ((reading.value if reading and reading.value else 0.0) / widest)
        y = 40 + (PLOT_HEIGHT - 80) * (1 - ((_accuracy(candidate) or 0.0) - low) / (high - low))
        colour = GOOD if candidate.is_chosen else INK
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
        parts.append(_text(x + 8, y + (4 if number % 2 else -4), _label(candidate), colour=colour))
    parts.append(_line(60, PLOT_HEIGHT - 30, WIDTH - 20, PLOT_HEIGHT - 30, INK))
    parts.append(_text(WIDTH - 130, PLOT_HEIGHT - 12, f"0 … {widest:.3f} ms"))
    parts.append(_text(60, PLOT_HEIGHT - 12, f"{low:.4f} … {high:.4f}"))
    return _svg(PLOT_HEIGHT, parts)


def plot_size(result: DemoResult) -> str:
    """Payload bytes per candidate."""
    rows = [row for row in result.candidates if row.size_bytes]
    largest = max((row.size_bytes or 0 for row in rows), default=1)
    parts = []
    for number, row in enumerate(rows):
        y, size = ROW * (number + 1), row.size_bytes or 0
        colour = GOOD if row.is_chosen else INK
        length = (WIDTH - LEFT - RIGHT - 80) * size / largest
        parts.append(_text(LEFT - 8, y + 4, _label(row), colour=colour, anchor="end"))
        parts.append(
            f'<rect x="{LEFT}" y="{y - 7}" width="{length:.1f}" height="14" fill="{colour}" opacity=".6"/>'
        )
        parts.append(_text(LEFT + length + 6, y + 4, f"{size / 1000:,.0f} kB", colour=colour))
    return _svg(ROW * (len(rows) + 1), parts)


def _measured(
    result: DemoResult, device_class: str
) -> Iterator[tuple[DemoCandidate, CandidateOnClass]]:
    for candidate in result.candidates:
        for one in candidate.classes:
            measurement = one.measurement if one.device_class == device_class else None
            if measurement is not None and measurement.latency.p90_ms.value is not None:
                yield candidate, one


def _dot_row(
    candidate: DemoCandidate, one: CandidateOnClass, y: float, highest: float
) -> Iterator[str]:
    assert one.measurement is not None
    reading = one.measurement.latency.p90_ms
    colour = GOOD if candidate.is_chosen else INK
    low, high = _x(reading.low_or_value(), highest), _x(reading.high_or_value(), highest)
    yield _text(LEFT - 8, y + 4, _label(candidate), colour=colour, anchor="end")
    yield _line(low, y, high, y, colour)
    yield f'<circle cx="{_x(reading.known(), highest):.1f}" cy="{y}" r="4" fill="{colour}"/>'


def _label(candidate: DemoCandidate) -> str:
    return f"{candidate.recipe} ({candidate.format.value})"


def _accuracy(candidate: DemoCandidate) -> float | None:
    return candidate.quality.exact if candidate.quality is not None else None


def _high(one: CandidateOnClass) -> float:
    assert one.measurement is not None
    return one.measurement.latency.p90_ms.high_or_value()


def _x(value: float, highest: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * value / highest


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="2"{dash}/>'
    )


def _text(
    x: float, y: float, text: str, *, colour: str = INK, anchor: str = "start", bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:{colour}"{weight}>'
        f"{html.escape(text)}</text>"
    )


def _svg(height: float, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" '
        f'role="img">{"".join(parts)}</svg>'
    )
