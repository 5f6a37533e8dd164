"""Three kinds of plot as inline SVG: points, bars and histograms. Pure text, no library, no script.

Rules:
    1. Every plot has a title and a description for people who hear the page.
    2. Nothing is told by colour alone: formats differ in their marks, before and after in filled and
       outlined, the front by a line and by what the table says.
    3. Ink is the page's own colour, so that a plot prints as the text does.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 16, 48
BAR_ROW = 20
BAR_TEXT = 130
MARKS = ("circle", "square", "triangle", "diamond")
LABEL_GAP = 14
LABEL_CHARACTERS = 34


@dataclass(frozen=True)
class Dot:
    """One point.

    Args:
        x: Above 0.
        y: A ratio, 0 to 1.
        label: Beside the point.
        group: 0, 1, ...: which mark it gets.
        is_on_front: Whether the line goes through it.
    """

    x: float
    y: float
    label: str
    group: int = 0
    is_on_front: bool = False


@dataclass(frozen=True)
class Scale:
    """From values to positions, along one axis.

    Args:
        low: Value at `begin`.
        high: Value at `end`.
        begin: Position.
        end: Position.
        is_log: Whether equal ratios are equally far apart.
    """

    low: float
    high: float
    begin: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """The position of a value."""
        low, high, found = self.low, self.high, value
        if self.is_log:
            low, high, found = math.log(low), math.log(high), math.log(value)
        return self.begin + (self.end - self.begin) * (found - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values inside."""
        if self.is_log:
            return log_ticks(self.low, self.high)
        return round_ticks(self.low, self.high)


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = (factor * 10.0**decade for decade in decades for factor in (1, 2, 5))
    return [value for value in values if low <= value <= high]


def round_ticks(low: float, high: float) -> list[float]:
    """Four to eight values in steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step)
    return [step * number for number in range(first, math.floor(high / step) + 1)]


def draw_dots(
    dots: Sequence[Dot], *, title: str, x_title: str, y_title: str, groups: Sequence[str]
) -> str:
    """Points over a logarithmic x axis, with the front as a stepped line.

    Args:
        dots: At least one.
        title: What is seen, for people who hear it.
        x_title: With its unit.
        y_title: With its unit.
        groups: What each mark stands for.
    """
    x = _widen_log([dot.x for dot in dots])
    y = _widen([dot.y for dot in dots])
    front = sorted((dot for dot in dots if dot.is_on_front), key=lambda dot: dot.x)
    parts = [*_axes(x, y, x_title, y_title), *_front_line(front, x, y)]
    for dot in dots:
        parts.append(
            _mark(x.at(dot.x), y.at(dot.y), MARKS[dot.group % len(MARKS)], dot.is_on_front)
        )
    for (px, py), label in _joined_labels(dots, x, y):
        parts.append(_text(px + 9, py - 6, label, small=True))
    for place, group in enumerate(groups):
        px, py = LEFT + 12, HEIGHT - BOTTOM - 14 - 16 * place
        parts.append(_mark(px, py - 4, MARKS[place % len(MARKS)], False))
        parts.append(_text(px + 10, py, group, small=True))
    names = "; ".join(f"{dot.label}: {dot.x:g}, {dot.y:g}" for dot in dots)
    return _frame(WIDTH, HEIGHT, title, f"{x_title} and {y_title}. {names}", parts)


def draw_bars(rows: Sequence[tuple[str, float, str]], *, title: str, unit: str) -> str:
    """Horizontal bars from 0, each with its name and its value as text.

    Args:
        rows: Name, value of 0 or more, and the value as it is written.
        title: What is seen.
        unit: Below the axis.
    """
    left, height = 300, BAR_ROW * len(rows) + BOTTOM
    high = max([value for _, value, _ in rows] + [1e-9])
    scale = Scale(0.0, high, left, WIDTH - BAR_TEXT)
    parts = []
    for place, (name, value, shown) in enumerate(rows):
        top = 4 + BAR_ROW * place
        parts.append(_text(left - 8, top + 12, _short(name), anchor="end", small=True))
        width = scale.at(value) - left
        parts.append(
            f'<rect x="{left}" y="{top}" width="{width:.1f}" height="{BAR_ROW - 7}" class="bar"/>'
        )
        parts.append(_text(left + width + 5, top + 12, shown, small=True))
    parts.append(_line(left, 0, left, BAR_ROW * len(rows)))
    parts.append(_text(left, BAR_ROW * len(rows) + 20, unit, small=True))
    heard = "; ".join(f"{name}: {shown}" for name, _, shown in rows)
    return _frame(WIDTH, height, title, heard, parts)


def draw_histograms(
    before: Sequence[float], after: Sequence[float], low: float, high: float, *, title: str
) -> str:
    """Two histograms over the same bins: before filled, after as an outline.

    Heights are square roots of the shares, so that the zeros of a ReLU do not hide the rest.
    """
    width, height, foot = 340, 150, 26
    before, after = ([math.sqrt(share) for share in row] for row in (before, after))
    top = max([*before, *after, 1e-6])
    x = Scale(low, high, 8, width - 8)
    y = Scale(0.0, top * 1.05, height - foot, 6)
    edges = [low + (high - low) * place / len(before) for place in range(len(before) + 1)]
    parts = [
        f'<path d="{_steps(before, edges, x, y, is_closed=True)}" class="before"/>',
        f'<path d="{_steps(after, edges, x, y, is_closed=False)}" class="after"/>',
        _line(8, height - foot, width - 8, height - foot),
    ]
    for value in round_ticks(low, high):
        px = x.at(value)
        parts.append(_line(px, height - foot, px, height - foot + 4))
        parts.append(_text(px, height - 8, f"{value:.4g}", anchor="middle", small=True))
    heard = f"Values from {low:.4g} to {high:.4g}; before filled, after outlined"
    return _frame(width, height, title, heard, parts)


def _steps(
    shares: Sequence[float], edges: Sequence[float], x: Scale, y: Scale, *, is_closed: bool
) -> str:
    points = [(edges[0], 0.0)]
    for place, share in enumerate(shares):
        points += [(edges[place], share), (edges[place + 1], share)]
    points.append((edges[-1], 0.0))
    path = "L".join(f"{x.at(one):.1f} {y.at(other):.1f}" for one, other in points)
    return f"M{path}{'Z' if is_closed else ''}"


def _widen(values: Sequence[float]) -> Scale:
    """Room above and below; a ratio has none above 1 but for the mark itself."""
    low, high = min(values), max(values)
    room = (high - low) * 0.15 or max(abs(high) * 0.02, 0.01)
    return Scale(low - room, min(high + room, 1.0 + room / 3), HEIGHT - BOTTOM, TOP)


def _widen_log(values: Sequence[float]) -> Scale:
    return Scale(min(values) / 1.3, max(values) * 1.3, LEFT, WIDTH - RIGHT, is_log=True)


def _axes(x: Scale, y: Scale, x_title: str, y_title: str) -> Iterator[str]:
    floor = HEIGHT - BOTTOM
    yield _line(LEFT, floor, WIDTH - RIGHT, floor)
    yield _line(LEFT, TOP, LEFT, floor)
    for value in x.ticks():
        yield _line(x.at(value), TOP, x.at(value), floor, faint=True)
        yield _text(x.at(value), floor + 16, short_number(value), anchor="middle", small=True)
    for value in (tick for tick in y.ticks() if tick <= 1.0):
        yield _line(LEFT, y.at(value), WIDTH - RIGHT, y.at(value), faint=True)
        yield _text(LEFT - 6, y.at(value) + 4, f"{value:.4g}", anchor="end", small=True)
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_title, anchor="middle")
    yield (
        f'<text x="16" y="{(TOP + floor) / 2:.1f}" text-anchor="middle" '
        f'transform="rotate(-90 16 {(TOP + floor) / 2:.1f})">{html.escape(y_title)}</text>'
    )


def _front_line(front: Sequence[Dot], x: Scale, y: Scale) -> Iterator[str]:
    """Up at each point: what costs less than the next one has the accuracy of the last."""
    if len(front) < 2:
        return
    path = f"M{x.at(front[0].x):.1f} {y.at(front[0].y):.1f}"
    for dot in front[1:]:
        path += f"H{x.at(dot.x):.1f}V{y.at(dot.y):.1f}"
    yield f'<path d="{path}" class="front"/>'


def _joined_labels(
    dots: Sequence[Dot], x: Scale, y: Scale
) -> list[tuple[tuple[float, float], str]]:
    """Where each label stands; points that lie over each other share one."""
    groups: list[tuple[tuple[float, float], list[str]]] = []
    for dot in dots:
        spot = (x.at(dot.x), y.at(dot.y))
        near = [row for row in groups if math.dist(row[0], spot) < LABEL_GAP]
        if near:
            near[0][1].append(dot.label)
        else:
            groups.append((spot, [dot.label]))
    return [(spot, ", ".join(labels)) for spot, labels in groups]


def short_number(value: float) -> str:
    """5000 -> 5k, 2000000 -> 2M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _mark(x: float, y: float, mark: str, is_filled: bool) -> str:
    style = 'class="dot on"' if is_filled else 'class="dot"'
    if mark == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {style}/>'
    if mark == "square":
        return f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" {style}/>'
    corners = [(x, y - 6), (x + 6, y + 5), (x - 6, y + 5)]
    if mark == "diamond":
        corners = [(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)]
    path = " ".join(f"{one:.1f},{other:.1f}" for one, other in corners)
    return f'<polygon points="{path}" {style}/>'


def _line(x1: float, y1: float, x2: float, y2: float, *, faint: bool = False) -> str:
    style = ' class="faint"' if faint else ' class="axis"'
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"{style}/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", small: bool = False) -> str:
    style = ' class="small"' if small else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{html.escape(text)}</text>'


def _short(name: str) -> str:
    """The end of a long name, which is what tells layers apart."""
    return name if len(name) <= LABEL_CHARACTERS else f"…{name[1 - LABEL_CHARACTERS :]}"


def _frame(width: int, height: int, title: str, heard: str, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>{html.escape(title)}</title><desc>{html.escape(heard)}</desc>{body}</svg>"
    )
