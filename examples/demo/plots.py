"""Three plots as inline SVG: dots with intervals, accuracy against latency, sizes as bars."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass

from result import DemoCandidate, DemoResult

from trimtab_protocol.budget import Metric
from trimtab_protocol.reading import Reading

Pair = tuple[DemoCandidate, Reading]
"""A candidate, and its p90 on the class that is drawn."""

WIDTH, ROW, LEFT, RIGHT = 860, 26, 300, 40
PLOT_HEIGHT = 320
INK, GOOD, LIMIT = "currentColor", "#0a7d4f", "#b3261e"


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis from `low` to `high`, between two x positions."""

    low: float
    high: float
    left: float
    right: float

    @classmethod
    def around(cls, values: list[float], left: float, right: float = WIDTH - RIGHT) -> Axis:
        """Wide enough for all values, which are above 0."""
        return cls(min(values) * 0.85, max(values) * 1.15, left, right)

    def at(self, value: float) -> float:
        """The x position of a value."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.left + (self.right - self.left) * share

    def draw(self, top: float, bottom: float) -> Iterator[str]:
        """Base line, ticks at 1, 2 and 5 of each decade, faint lines."""
        yield _line(self.left, bottom, self.right, bottom, INK)
        for exponent in range(
            math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1
        ):
            for factor in (1, 2, 5):
                value = factor * 10.0**exponent
                if self.low <= value <= self.high:
                    x = self.at(value)
                    yield (
                        f'<line x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}" '
                        f'stroke="{INK}" opacity=".15"/>'
                    )
                    yield _text(x, bottom + 16, f"{value:g}", anchor="middle")


def plot_latency(result: DemoResult, device_class: str) -> str:
    """p90 with its interval per candidate on a logarithmic axis, and the budget as a line."""
    rows = list(_measured(result, device_class))
    limit = result.budgets[device_class].limits.get(Metric.P90_MS)
    axis = Axis.around([*map(_low, rows), *map(_high, rows)] + ([limit] if limit else []), LEFT)
    height = ROW * (len(rows) + 4)
    parts = [_text(LEFT, 18, f"{device_class}: p90 in ms, with 95 % interval", bold=True)]
    parts += axis.draw(ROW * 1.5, height - ROW * 1.5)
    for number, row in enumerate(rows):
        parts += _dot_row(row, ROW * (number + 2.2), axis)
    if limit is not None:
        x = axis.at(limit)
        parts.append(_line(x, ROW, x, height - ROW * 1.5, LIMIT, dashed=True))
        parts.append(_text(x + 4, ROW + 8, f"budget {limit:.4f}", colour=LIMIT))
    return _svg(height, parts)


def plot_accuracy(result: DemoResult, device_class: str) -> str:
    """Accuracy of the exported file against p90; up and left is better. Numbers name the dots."""
    rows = [row for row in _measured(result, device_class) if _accuracy(row) is not None]
    if not rows:
        return ""
    accuracies = [_accuracy(row) or 0.0 for row in rows]
    low, high = min(accuracies) - 0.001, max(accuracies) + 0.001
    axis = Axis.around([_p90(row) for row in rows], 70, WIDTH - 300)
    height = max(PLOT_HEIGHT, ROW * 0.75 * len(rows) + 60)
    bottom = height - 40
    parts = [_text(70, 18, f"{device_class}: accuracy against p90 in ms", bold=True)]
    parts += axis.draw(40, bottom)
    for share in (0.0, 0.5, 1.0):
        y = bottom - (bottom - 50) * share
        parts.append(_text(62, y + 4, f"{low + (high - low) * share:.4f}", anchor="end"))
    for number, row in enumerate(rows, 1):
        x = axis.at(_p90(row))
        y = bottom - (bottom - 50) * ((_accuracy(row) or 0.0) - low) / (high - low)
        colour = GOOD if row[0].is_chosen else INK
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        parts.append(
            _text(x, y - 8 if number % 2 else y + 18, str(number), colour=colour, anchor="middle")
        )
        label = f"{number}  {_label(row[0])}"
        parts.append(_text(WIDTH - 280, 40 + number * ROW * 0.75, label, colour=colour))
    return _svg(height, parts)


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


def _measured(result: DemoResult, device_class: str) -> Iterator[Pair]:
    for candidate in result.candidates:
        for one in candidate.classes:
            measurement = one.measurement if one.device_class == device_class else None
            if measurement is not None and measurement.latency.p90_ms.value is not None:
                yield candidate, measurement.latency.p90_ms


def _dot_row(row: Pair, y: float, axis: Axis) -> Iterator[str]:
    colour = GOOD if row[0].is_chosen else INK
    yield _text(LEFT - 8, y + 4, _label(row[0]), colour=colour, anchor="end")
    yield _line(axis.at(_low(row)), y, axis.at(_high(row)), y, colour)
    yield f'<circle cx="{axis.at(_p90(row)):.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'


def _label(candidate: DemoCandidate) -> str:
    return f"{candidate.recipe} ({candidate.format.value})"


def _accuracy(row: Pair) -> float | None:
    return row[0].quality.exact if row[0].quality is not None else None


def _p90(row: Pair) -> float:
    return row[1].known()


def _low(row: Pair) -> float:
    return row[1].low_or_value()


def _high(row: Pair) -> float:
    return row[1].high_or_value()


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False) -> str:
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}" stroke-width="2"{dash}/>'
    )


def _text(
    x: float, y: float, text: str, *, colour: str = INK, anchor: str = "start", bold: bool = False
) -> str:
    weight = ";font-weight:600" if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:{colour}{weight}">'
        f"{html.escape(text)}</text>"
    )


def _svg(height: float, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" '
        f'role="img">{"".join(parts)}</svg>'
    )
