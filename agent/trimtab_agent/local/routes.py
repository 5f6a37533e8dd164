"""What applications may ask, one function for each question. No sockets here.

GET    /v1/models                     all views, and the change number
GET    /v1/models/NAME                one view, its use and its hold
PUT    /v1/models/NAME/hold           {"minutes": 5, "holder": "camera"}
DELETE /v1/models/NAME/hold?holder=camera
POST   /v1/models/NAME/started        {"sha256": …, "application": "camera"}
POST   /v1/models/NAME/heartbeat      {"sha256": …, "application": "camera"}
POST   /v1/models/NAME/latencies      {"sha256": …, "latencies_ms": […]} or {…, "buckets": {"80": 3}}
GET    /v1/changes?since=N&timeout_s=30
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import Field, StrictFloat, StrictInt

from trimtab_agent.in_use import Use
from trimtab_agent.local.board import Board
from trimtab_agent.local.histogram import RESOLUTION_RATIO, Histogram
from trimtab_agent.local.views import ModelView
from trimtab_protocol.api import Problem
from trimtab_protocol.base import Identifier, Sha256, WireModel, build_now, parse_wire
from trimtab_protocol.errors import ErrorCode, ProtocolError, TrimtabError

MAX_WAIT_S = 60.0
MAX_LATENCIES = 10_000

STATUS_OF = {
    ErrorCode.PROTOCOL_UNKNOWN: 404,
    ErrorCode.PROTOCOL_CONFLICT: 409,
    ErrorCode.TRANSIENT_BUSY: 409,
}
TITLES = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    409: "Conflict",
    411: "Length required",
    413: "Content too large",
    414: "URI too long",
    431: "Request header fields too large",
    501: "Not implemented",
    503: "Service unavailable",
    505: "HTTP version not supported",
}


@dataclass(frozen=True)
class Request:
    """One question.

    Args:
        target: Path and query, as they came.
        is_gone: Whether the asker went away while an answer is waited for.
    """

    method: str
    target: str
    body: bytes
    is_gone: Callable[[], bool]


@dataclass(frozen=True)
class Answer:
    """One answer, JSON."""

    status: int
    body: bytes
    media_type: str = "application/json"
    allow: str = ""


class HoldBody(WireModel):
    """A hold: for how long, and whose."""

    minutes: Annotated[float, Field(gt=0, le=1440)]
    holder: Identifier = "anybody"


class UseBody(WireModel):
    """Which file an application has open.

    Args:
        application: Its own name: one for each process that runs at the same time, the same over
            its restarts.
    """

    sha256: Sha256
    application: Identifier = "anybody"


class LatenciesBody(UseBody):
    """Latencies of one file: one by one, or counted by bucket."""

    latencies_ms: Annotated[
        tuple[StrictFloat | StrictInt, ...], Field(max_length=MAX_LATENCIES)
    ] = ()
    buckets: Annotated[
        dict[int, Annotated[StrictInt, Field(ge=1, le=10**9)]], Field(max_length=1000)
    ] = Field(default_factory=dict)


for _model in (HoldBody, UseBody, LatenciesBody, ModelView, Problem):
    build_now(_model)  # before there are connections, whose threads use them at once


@dataclass(frozen=True)
class Asked:
    """What a route's function gets: the name in the path, the query, and the request."""

    name: str
    query: dict[str, str]
    request: Request


class Routes:
    """All questions.

    Args:
        board: Where the answers are.
        max_hold_s: The longest hold that may be asked for.
    """

    def __init__(self, board: Board, max_hold_s: float) -> None:
        self._board = board
        self._max_hold_s = max_hold_s
        self._table: dict[tuple[str, str], Callable[[Asked], dict[str, object]]] = {
            ("GET", "models"): self._models,
            ("GET", "models/NAME"): self._model,
            ("PUT", "models/NAME/hold"): self._hold,
            ("DELETE", "models/NAME/hold"): self._release,
            ("POST", "models/NAME/started"): self._started,
            ("POST", "models/NAME/heartbeat"): self._heartbeat,
            ("POST", "models/NAME/latencies"): self._latencies,
            ("GET", "changes"): self._changes,
        }

    def answer(self, request: Request) -> Answer:
        """Answer a question; what is wrong with it is said as a problem."""
        parts = urlsplit(request.target)
        pattern, name = _split(parts.path)
        allowed = [method for method, known in self._table if known == pattern]
        if not allowed:
            return problem(404, ErrorCode.PROTOCOL_UNKNOWN, f"there is nothing at {parts.path!r}")
        act = self._table.get((request.method, pattern))
        if act is None:
            allow = ", ".join(allowed)
            detail = f"{parts.path} takes {allow}, not {request.method}"
            return problem(405, ErrorCode.PROTOCOL_MALFORMED, detail, allow=allow)
        query = {key: rows[-1] for key, rows in parse_qs(parts.query).items()}
        try:
            found = act(Asked(name, query, request))
        except TrimtabError as error:
            return problem(STATUS_OF.get(error.code, 400), error.code, error.message)
        return Answer(200, json.dumps(found).encode() + b"\n")

    def _models(self, asked: Asked) -> dict[str, object]:  # noqa: ARG002 - the table's shape
        change, views = self._board.views()
        return {"change": change, "models": [self._show(view) for view in views.values()]}

    def _changes(self, asked: Asked) -> dict[str, object]:
        since = int(_number(asked.query, "since", 0, 2**63))
        timeout_s = _number(asked.query, "timeout_s", 30, MAX_WAIT_S)
        self._board.wait_for_change(since, timeout_s, asked.request.is_gone)
        return self._models(asked)

    def _model(self, asked: Asked) -> dict[str, object]:
        return self._show(self._board.view(asked.name))

    def _hold(self, asked: Asked) -> dict[str, object]:
        body = parse_wire(HoldBody, asked.request.body, what="hold")
        if body.minutes * 60 > self._max_hold_s:
            raise ProtocolError(
                f"a hold lasts at most {self._max_hold_s / 60:g} minutes here "
                f"([local] max_hold_minutes), found {body.minutes:g}"
            )
        held_s = self._board.hold(asked.name, body.holder, body.minutes * 60)
        return {"holder": body.holder, "held_for_s": round(held_s, 3)}

    def _release(self, asked: Asked) -> dict[str, object]:
        holder = asked.query.get("holder", "anybody")
        self._board.release(asked.name, holder)
        return {"holder": holder, "held_for_s": 0}

    def _started(self, asked: Asked) -> dict[str, object]:
        body = parse_wire(UseBody, asked.request.body, what="start")
        return {"is_active": self._board.started(asked.name, body.sha256, body.application)}

    def _heartbeat(self, asked: Asked) -> dict[str, object]:
        body = parse_wire(UseBody, asked.request.body, what="heartbeat")
        return {"is_active": self._board.heartbeat(asked.name, body.sha256, body.application)}

    def _latencies(self, asked: Asked) -> dict[str, object]:
        body = parse_wire(LatenciesBody, asked.request.body, what="latencies")
        histogram = Histogram()
        try:
            histogram.merge(body.buckets)
            histogram.add(body.latencies_ms)
        except ValueError as error:
            raise ProtocolError(f"malformed latencies: {error}") from error
        return {
            "is_active": self._board.add_latencies(
                asked.name, body.sha256, body.application, histogram.take()
            )
        }

    def _show(self, view: ModelView) -> dict[str, object]:
        shown: dict[str, object] = view.model_dump(mode="json")
        now_s, held_until_s = time.monotonic(), self._board.held_until_s(view.name)
        shown["held_for_s"] = max(0.0, round(held_until_s - now_s, 3)) if held_until_s else 0
        if view.active is not None:
            uses = self._board.uses_of(view.name, view.active.sha256)
            shown["applications"] = {
                application: _show_use(use, now_s) for application, use in sorted(uses.items())
            }
        return shown


def problem(status: int, code: ErrorCode, detail: str, *, allow: str = "") -> Answer:
    """An error, after RFC 9457."""
    title = TITLES.get(status, "Error")
    body = Problem(title=title, status=status, detail=detail, code=code).model_dump_json()
    return Answer(status, body.encode() + b"\n", "application/problem+json", allow)


def _show_use(use: Use, now_s: float) -> dict[str, object]:
    shown: dict[str, object] = {
        "starts": use.starts,
        "inferences": use.inferences,
        "p50_ms": _round(use.p50_ms),
        "p90_ms": _round(use.p90_ms),
        "resolution_ratio": round(RESOLUTION_RATIO, 4),
    }
    for key, at_s in (("started", use.started_at_s), ("heartbeat", use.heartbeat_at_s)):
        shown[f"{key}_ago_s"] = round(now_s - at_s, 3) if at_s is not None else None
    return shown


def _round(latency_ms: float | None) -> float | None:
    return round(latency_ms, 4) if latency_ms is not None else None


def _split(path: str) -> tuple[str, str]:
    """("/v1/models/digits/hold") -> ("models/NAME/hold", "digits")."""
    found = re.fullmatch(r"/v1/(models|changes)(?:/([^/]+))?(?:/([a-z]+))?", path)
    if found is None:
        return "", ""
    head, name, tail = found.groups()
    rows = [head, "NAME" if name else None, tail]
    return "/".join(row for row in rows if row), unquote(name or "")


def _number(query: dict[str, str], key: str, default: float, high: float) -> float:
    text = query.get(key)
    try:
        value = float(text) if text is not None else default
    except ValueError:
        value = -1.0
    if not 0 <= value <= high:
        raise ProtocolError(f"{key} must be a number from 0 to {high:g}, found {text!r}")
    return value
