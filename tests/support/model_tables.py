"""From measured candidates to a table in a document: pure.

Rules:
    1. A ratio is to the float model of the same format, with its 95 % interval.
    2. What could not be made or measured keeps its row, with the reason.
    3. Between its markers a document belongs to the tool, outside of them to people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trimtab_compressor.host_latency import HostLatency

ABSENT = "–"
ALLOWED_DROP = 0.005
"""Of exact accuracy, for a candidate that may be called best."""


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One candidate.

    Args:
        label: What made it.
        format: "onnx" or "tflite".
        exact: Accuracy in the arithmetic that the file asks for, 0 to 1.
        on_host: Accuracy by the default kernels of this CPU.
        size_bytes: Of the file.
        packed_bytes: Of the file through zlib at its highest level.
        macs: Multiplications with additions of one inference.
        latency: Beside the float model of the same format; None for that itself, or if unmeasured.
        seconds: What making it took.
        note: What a reader should know.
        is_base: Whether it is the float model.
    """

    label: str
    format: str
    exact: float | None = None
    on_host: float | None = None
    size_bytes: int | None = None
    packed_bytes: int | None = None
    macs: int | None = None
    latency: HostLatency | None = None
    seconds: float | None = None
    note: str = ""
    is_base: bool = False


def find_best(rows: Sequence[ModelRow], model_format: str) -> dict[str, ModelRow]:
    """The smallest and the fastest of a format that lose at most ALLOWED_DROP.

    Args:
        rows: With the base among them.
        model_format: "onnx" or "tflite".
    """
    own = [row for row in rows if row.format == model_format]
    base = next((row for row in own if row.is_base), None)
    if base is None or base.exact is None:
        return {}
    allowed = [
        row
        for row in own
        if not row.is_base and row.exact is not None and row.exact >= base.exact - ALLOWED_DROP
    ]
    small = [row for row in allowed if row.size_bytes is not None]
    fast = [row for row in allowed if row.latency is not None]
    best = {}
    if small:
        best["smallest"] = min(small, key=lambda row: row.size_bytes or 0)
    if fast:
        best["fastest"] = min(fast, key=lambda row: row.latency.ratio if row.latency else 0)
    return best


def render_table(rows: Sequence[ModelRow], columns: Sequence[str]) -> str:
    """A Markdown table.

    Args:
        rows: In order.
        columns: Names of CELLS.
    """
    lines = [
        "| " + " | ".join(columns) + " |",
        "|" + "|".join("---" if name in TEXT_COLUMNS else "---:" for name in columns) + "|",
    ]
    lines += ["| " + " | ".join(CELLS[name](row) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def replace_block(document: str, name: str, content: str) -> str:
    """Put `content` between the markers `<!-- name -->` and `<!-- /name -->`.

    Raises:
        ValueError: The document does not have both, once and in this order.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if document.count(begin) != 1 or document.count(end) != 1:
        raise ValueError(f"the document needs the markers {begin} and {end}, each once")
    head, rest = document.split(begin)
    if end not in rest:
        raise ValueError(f"{end} stands before {begin}")
    return f"{head}{begin}\n\n{content.strip()}\n\n{end}{rest.split(end)[1]}"


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2%}".replace("%", " %")


def _whole(value: int | None) -> str:
    return ABSENT if value is None else f"{value:,}"


def _ratio(row: ModelRow) -> str:
    if row.is_base:
        return "1"
    found = row.latency
    return ABSENT if found is None else f"{found.ratio:.2f} ({found.low:.2f}–{found.high:.2f})"


def _p50(row: ModelRow) -> str:
    return ABSENT if row.latency is None else f"{row.latency.p50_ms:.4f}"


def _seconds(row: ModelRow) -> str:
    return ABSENT if row.seconds is None else f"{row.seconds:.1f}"


CELLS: dict[str, Callable[[ModelRow], str]] = {
    "recipe": lambda row: row.label,
    "tool": lambda row: row.label,
    "format": lambda row: row.format,
    "accuracy, exact": lambda row: _percent(row.exact),
    "accuracy, this CPU": lambda row: _percent(row.on_host),
    "bytes": lambda row: _whole(row.size_bytes),
    "zlib bytes": lambda row: _whole(row.packed_bytes),
    "MACs": lambda row: _whole(row.macs),
    "latency to fp32": _ratio,
    "p50 ms": _p50,
    "seconds": _seconds,
    "note": lambda row: row.note,
}
TEXT_COLUMNS = {"recipe", "tool", "format", "note"}
