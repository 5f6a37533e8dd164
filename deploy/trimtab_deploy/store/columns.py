"""Documents of the protocol in text columns, and back."""

from __future__ import annotations

import json
from typing import Any

from trimtab_protocol.base import WireModel, WireModelT, parse_wire


def to_text(model: WireModel | None) -> str | None:
    """A document as JSON; None stays NULL."""
    return None if model is None else model.model_dump_json(exclude_none=True)


def from_text(model: type[WireModelT], text: str | None) -> WireModelT | None:
    """A document from its column; NULL is None.

    Raises:
        ProtocolError: The column does not hold such a document: the file was damaged.
    """
    return None if text is None else parse_wire(model, text, what=f"stored {model.__name__}")


def must_from_text(model: type[WireModelT], text: str) -> WireModelT:
    """A document from a column that is never NULL.

    Raises:
        ProtocolError: As `from_text`.
    """
    return parse_wire(model, text, what=f"stored {model.__name__}")


def dump(value: Any) -> str:
    """A plain list or dict as JSON."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
