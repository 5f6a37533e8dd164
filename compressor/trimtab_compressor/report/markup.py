"""Pieces of a page: tables, figures and figures in words, all escaped; and the page's style."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from trimtab_protocol.manifest import Scalar
from trimtab_protocol.reading import Reading

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 66rem; padding: 0 1rem;
  color: #1b1b1f; background: #fff; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin-top: 2rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .92em; } caption { text-align: left; font-weight: 600; }
th, td { padding: .2rem .5rem; border-bottom: 1px solid #ccc; text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font-size: .85em; overflow-wrap: anywhere; }
figure { margin: .8rem 0; } figcaption { font-size: .9em; overflow-wrap: anywhere; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: .6rem; }
.scroll { overflow-x: auto; }
svg { max-width: 100%; height: auto; fill: currentColor; font: 13px system-ui, sans-serif; }
svg .small { font-size: 11px; }
svg .axis { stroke: currentColor; } svg .faint { stroke: currentColor; opacity: .15; }
svg .dot { fill: #fff; stroke: currentColor; stroke-width: 1.5; } svg .dot.on { fill: #1f5fbf; }
svg .front { fill: none; stroke: #1f5fbf; stroke-width: 1.5; stroke-dasharray: 5 3; }
svg .bar { fill: #7d93b8; stroke: currentColor; stroke-width: .5; }
svg .before { fill: #c9ced8; stroke: none; }
svg .after { fill: none; stroke: #1f5fbf; stroke-width: 1.4; }
@media print { body { margin: 0; max-width: none; } figure, tr, svg { break-inside: avoid; } }
"""


def table(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int
) -> str:
    """A table; from column `numbers` on, cells are set flush right."""

    def cell(tag: str, place: int, text: str) -> str:
        style = ' class="number"' if place >= numbers else ""
        return f"<{tag}{style}>{escape(text)}</{tag}>"

    head = "".join(cell("th", place, text) for place, text in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(cell("td", place, text) for place, text in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def bullets(rows: Iterable[str]) -> str:
    """A list."""
    return "<ul>" + "".join(f"<li>{escape(row)}</li>" for row in rows) + "</ul>"


def figure(plot: str, caption: str) -> str:
    """A plot with what it shows below it."""
    return f"<figure>{plot}<figcaption>{escape(caption)}</figcaption></figure>"


def join_scalars(values: dict[str, Scalar]) -> str:
    """Parameters in one line."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def show_ratio(value: float | None) -> str:
    """Four decimals, "-" if it is absent."""
    return "-" if value is None else f"{value:.4f}"


def show_count(value: int | None) -> str:
    """A whole number, "-" if it is absent."""
    return "-" if value is None else f"{value:,}"


def show_reading(reading: Reading, form: str) -> str:
    """A value, "-" if it is absent."""
    return format(reading.value, form) if reading.value is not None else "-"


def escape(text: str) -> str:
    """Escaped, and without the control characters that XML has no way to write."""
    return html.escape("".join(one for one in text if one.isprintable() or one in "\n\t"))
