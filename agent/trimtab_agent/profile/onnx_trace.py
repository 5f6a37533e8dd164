"""ONNX Runtime's own trace, as 1.18 to 1.32 write it: one JSON array of events.

Events of category Session frame the runs (`model_run`), those of category Node are operators
(`<node>_kernel_time`; 1.18 also writes `_fence_before` and `_fence_after` of no length). `ts` and
`dur` are whole microseconds, and every value in `args` is a string. A trace begins with the
session, so the warm-up is inside and is cut off here by counting `model_run`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab_agent.profile.record import OperatorSamples
from trimtab_protocol.errors import ModelError

KERNEL_SUFFIX = "_kernel_time"
CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})
"""Their time holds the time of the nodes inside, which are events too."""


@dataclass(frozen=True)
class Trace:
    """The runs after the warm-up; times in microseconds."""

    run_us: tuple[float, ...]
    operators: tuple[OperatorSamples, ...]


@dataclass(frozen=True)
class _Span:
    start_us: int
    end_us: int


def parse_trace(text: str, warm_up_runs: int) -> Trace:
    """Read a trace.

    Args:
        text: The file's content.
        warm_up_runs: So many runs at the beginning do not count.

    Raises:
        ModelError: It is not a trace that we understand, or it was cut off.
    """
    events = _load(text)
    try:
        runs = sorted(
            (
                _span(row)
                for row in events
                if row["cat"] == "Session" and row["name"] == "model_run"
            ),
            key=lambda span: span.start_us,
        )[warm_up_runs:]
        if not runs:
            raise ModelError(
                f"the trace of ONNX Runtime has no run after {warm_up_runs} of warm-up"
            )
        kernels = [row for row in events if _is_kernel(row, runs[0].start_us)]
        operators = tuple(_collect(_outermost(kernels)))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"the trace of ONNX Runtime has an event of another form: {error!r}"
        ) from (error)
    return Trace(tuple(float(run.end_us - run.start_us) for run in runs), operators)


def _load(text: str) -> list[Mapping[str, Any]]:
    try:
        events = json.loads(text)
    except ValueError as error:
        raise ModelError(f"the trace of ONNX Runtime is not whole: {error}") from error
    if not isinstance(events, list) or not all(isinstance(row, dict) for row in events):
        raise ModelError("the trace of ONNX Runtime is not a list of events")
    return events


def _span(row: Mapping[str, Any]) -> _Span:
    start_us = int(row["ts"])
    return _Span(start_us, start_us + int(row["dur"]))


def _is_kernel(row: Mapping[str, Any], from_us: int) -> bool:
    is_node = row["cat"] == "Node" and str(row["name"]).endswith(KERNEL_SUFFIX)
    return is_node and int(row["ts"]) >= from_us


def _outermost(kernels: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """All but the nodes inside an If, a Loop or a Scan."""
    outer = [(id(row), _span(row)) for row in kernels if row["args"]["op_name"] in CONTROL_FLOW]
    for row in kernels:
        own = _span(row)
        is_inside = any(
            number != id(row) and span.start_us <= own.start_us and own.end_us <= span.end_us
            for number, span in outer
        )
        if not is_inside:
            yield row


def _collect(kernels: Iterator[Mapping[str, Any]]) -> Iterator[OperatorSamples]:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in kernels:
        groups.setdefault((str(row["args"]["node_index"]), str(row["name"])), []).append(row)
    for (node_index, name), rows in groups.items():
        arguments = rows[-1]["args"]
        yield OperatorSamples(
            name=name.removesuffix(KERNEL_SUFFIX),
            op=str(arguments["op_name"]),
            durations_us=tuple(float(row["dur"]) for row in rows),
            node_index=int(node_index),
            provider=str(arguments.get("provider", "")),
            input_bytes=_optional_int(arguments, "activation_size"),
            output_bytes=_optional_int(arguments, "output_size"),
            parameter_bytes=_optional_int(arguments, "parameter_size"),
        )


def _optional_int(arguments: Mapping[str, Any], key: str) -> int | None:
    value = arguments.get(key)
    return None if value is None else int(value)
