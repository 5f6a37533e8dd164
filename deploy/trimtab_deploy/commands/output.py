"""Tables for people, documents for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from trimtab_protocol.base import WireModel
from trimtab_protocol.reading import Reading

PIPE_COLUMNS = 240
"""Width when nobody looks: a line stays one line for `grep`."""


def print_json(found: WireModel | Sequence[WireModel]) -> None:
    """The document, or a list of them, as JSON."""
    if isinstance(found, WireModel):
        sys.stdout.write(found.model_dump_json(indent=2, exclude_none=True) + "\n")
    else:
        raw = TypeAdapter(list[WireModel]).dump_json(
            list(found), indent=2, exclude_none=True, serialize_as_any=True
        )
        sys.stdout.write(raw.decode() + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table; a bare one when the output is not a terminal."""
    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    Console(width=width).print(make_table(columns, rows))


def make_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table to be printed or shown live."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """One `name  value` per line; empty values are left out."""
    shown = [(name, value) for name, value in fields if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        sys.stdout.write(f"{name:<{width}}  {value}\n")


def show_time(unix_time: float | None) -> str:
    """Local date and time; a dash for never."""
    if unix_time is None:
        return "-"
    return datetime.fromtimestamp(unix_time).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def show_reading(reading: Reading | None, unit: str = "", digits: int = 4) -> str:
    """A value with its interval, or why there is none."""
    if reading is None:
        return "-"
    if reading.value is None:
        return f"absent: {reading.absent}"
    text = f"{reading.value:.{digits}g}{unit}"
    if reading.interval is not None:
        text += f" [{reading.interval.low:.{digits}g}, {reading.interval.high:.{digits}g}]"
    return text
