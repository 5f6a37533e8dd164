"""The base of all models on the wire, and the names they are made of.

Rules: frozen; unknown fields are ignored (an older reader survives a newer writer); non-finite
numbers are refused; names are bounded so that a topic, a file name and a log line can carry them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from trimtab_protocol import PROTOCOL_MAJOR, PROTOCOL_VERSION
from trimtab_protocol.errors import ErrorCode, ProtocolError


class WireModel(BaseModel):
    """Frozen, tolerant of unknown fields, strict about numbers. [P-2.2]"""

    model_config = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, ser_json_inf_nan="null"
    )

    @classmethod
    def model_rebuild(cls, **options: Any) -> bool | None:
        """Build the parts first: whatever holds a part that is built shares it, a megabyte in all."""
        for field in cls.model_fields.values():
            for part in _models_within(field.annotation):
                if not part.__pydantic_complete__:
                    part.model_rebuild()
        return super().model_rebuild(**options)


def _models_within(annotation: Any) -> Iterator[type[WireModel]]:
    if isinstance(annotation, type) and issubclass(annotation, WireModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_within(argument)


def build_at_first_use() -> None:
    """Let each model that is defined from now on build its validator when it is first used.

    For a program that reads few kinds of message and must stay small. Building is not safe while
    another thread uses the same model, so only one thread may use models that are not built yet:
    see `build_now`. Call it before any module with models is imported.
    """
    WireModel.model_config["defer_build"] = True


def build_now(model: type[WireModel]) -> None:
    """Build a model before another thread uses it; does nothing if it is built."""
    model.model_rebuild()


WireModelT = TypeVar("WireModelT", bound=WireModel)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""Model, device, class and site names: they become topic levels and folder names. [P-1.2]"""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in lowercase hexadecimal."""

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,80}$")]
"""Ids of trials, deployments, reports: opaque, safe in a file name."""

Version = Annotated[int, Field(ge=1, le=2**53)]
"""An artifact's version: an integer that only grows."""

UnixTime = Annotated[float, Field(ge=0, description="seconds since 1970-01-01 UTC")]


_PLAIN = {
    "extra_forbidden": "unknown key, see the documentation for those that there are",
    "missing": "is missing",
}
"""Pydantic's words where they are not a person's."""


def describe_validation_error(error: ValidationError, limit: int = 3) -> str:
    """Turn pydantic's list into one bounded line: `field: what is wrong`, at most `limit` of them.

    A peer chooses the names of fields; control characters in them are shown escaped, so that they
    neither break the line nor reach a terminal.
    """
    rows = [
        f"{_printable('.'.join(str(part) for part in row['loc']), 80) or '(whole)'}: "
        f"{_printable(_PLAIN.get(row['type'], row['msg']), 200)}"
        for row in error.errors(include_url=False, include_input=False)
    ]
    more = f" (and {len(rows) - limit} more)" if len(rows) > limit else ""
    return "; ".join(rows[:limit]) + more


def _printable(text: str, limit: int) -> str:
    """At most `limit` characters, cut after escaping, which makes a text longer."""
    shown = (one if one.isprintable() else ascii(one)[1:-1] for one in text[:limit])
    return "".join(shown)[:limit]


class _VersionOnly(WireModel):
    schema_version: str = PROTOCOL_VERSION


def check_major(payload: bytes | str, *, what: str) -> None:
    """Refuse another major version, whatever else the document holds. [P-2.3]

    A document of another major version may look entirely different, so this comes before its own
    model is tried.

    Raises:
        ProtocolError: `protocol.version` for another major version, `protocol.malformed` for what
            is no JSON object. Drop it and count it.
    """
    version = parse_wire(_VersionOnly, payload, what=what).schema_version
    if version.split(".", 1)[0] != str(PROTOCOL_MAJOR):
        raise ProtocolError(
            f"{what} has schema version {version[:20]!r}, this program speaks {PROTOCOL_MAJOR}.x",
            code=ErrorCode.PROTOCOL_VERSION,
        )


def parse_versioned(
    model: type[WireModelT] | TypeAdapter[WireModelT], payload: bytes | str, *, what: str
) -> WireModelT:
    """Read one JSON document that names its schema version.

    Raises:
        ProtocolError: As `check_major` and `parse_wire`.
    """
    check_major(payload, what=what)
    return parse_wire(model, payload, what=what)


def parse_wire(
    model: type[WireModelT] | TypeAdapter[WireModelT], payload: bytes | str, *, what: str
) -> WireModelT:
    """Read one JSON document into `model`.

    Args:
        model: The model to build, or the adapter of a union of models.
        payload: UTF-8 JSON.
        what: What is being read, for the message ("desired state", "manifest").

    Raises:
        ProtocolError: The document is not JSON or breaks the model. Drop it and count it.
    """
    try:
        if isinstance(model, TypeAdapter):
            return model.validate_json(payload)
        return model.model_validate_json(payload)
    except ValidationError as error:
        raise ProtocolError(f"malformed {what}: {describe_validation_error(error)}") from error
