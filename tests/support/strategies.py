"""Hypothesis strategies for every model of the protocol, read off the models themselves.

`a_model(Birth)` draws any valid birth: types, bounds and patterns come from the field definitions, so
a new field is tested from the day on which it is written. Models whose validator ties fields together
have a strategy of their own in `_BY_HAND`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import annotated_types
from hypothesis import strategies as st
from pydantic import BaseModel, StringConstraints
from pydantic.fields import FieldInfo

from support.factories import a_budget, a_manifest
from trimtab_protocol.base import WireModel
from trimtab_protocol.budget import Budget, Metric
from trimtab_protocol.manifest import Manifest, ModelFormat, Payload, describe_payload
from trimtab_protocol.reading import Interval, Reading
from trimtab_protocol.rollout import StageSpec
from trimtab_protocol.tensors import DTYPE_BYTES, InlineTensor, count_elements, pack_tensor

WireT = TypeVar("WireT", bound=WireModel)
Strategy = st.SearchStrategy[Any]

finite_floats = st.floats(allow_nan=False, allow_infinity=False)
names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
shas = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
payload_bytes = st.binary(min_size=1, max_size=5000)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    """Any interval, ends in order."""
    low, high = sorted((draw(finite_floats), draw(finite_floats)))
    confidence = draw(st.floats(0, 1, exclude_min=True, exclude_max=True))
    return Interval(low=low, high=high, confidence=confidence)


def readings() -> st.SearchStrategy[Reading]:
    """Known, known with an interval (not always around the value), or absent."""
    return st.one_of(
        st.builds(Reading, value=finite_floats),
        st.builds(Reading, value=finite_floats, interval=intervals()),
        st.builds(Reading, absent=st.text(max_size=20)),
    )


@st.composite
def inline_tensors(draw: st.DrawFn) -> InlineTensor:
    """Any small inline tensor with data of the right length."""
    dtype = draw(st.sampled_from(sorted(DTYPE_BYTES)))
    shape = tuple(draw(st.lists(st.integers(1, 4), max_size=4)))
    length = count_elements(shape) * DTYPE_BYTES[dtype]
    return pack_tensor(dtype, shape, draw(st.binary(min_size=length, max_size=length)))  # type: ignore[arg-type]  # sampled from DType's own keys


def payloads() -> st.SearchStrategy[Payload]:
    """Any small payload with a true chunk table."""
    return st.builds(
        describe_payload,
        payload_bytes,
        st.sampled_from(ModelFormat),
        st.integers(1024, 1024**2),
    )


def budgets() -> st.SearchStrategy[Budget]:
    """Any budget; limits above zero."""
    limit = st.floats(1e-12, 1e12)
    return st.builds(Budget, limits=st.dictionaries(st.sampled_from(Metric), limit, max_size=8))


def manifests() -> st.SearchStrategy[Manifest]:
    """Manifests that differ in what a test may turn."""
    return st.builds(
        a_manifest,
        name=names,
        version=st.integers(1, 2**53),
        payload=payload_bytes,
        chunk_bytes=st.integers(1024, 1024**2),
        model_format=st.sampled_from(ModelFormat),
        device_classes=st.lists(names, max_size=3).map(tuple),
        budgets=st.dictionaries(names, st.builds(a_budget, p90_ms=st.floats(0.1, 100)), max_size=2),
    )


_BY_HAND: dict[type[BaseModel], Callable[[], Strategy]] = {
    Interval: intervals,
    Reading: readings,
    InlineTensor: inline_tensors,
    Payload: payloads,
    Budget: budgets,
    Manifest: manifests,
    StageSpec: lambda: st.one_of(
        st.builds(StageSpec, count=st.integers(1, 10_000)),
        st.builds(StageSpec, ratio=st.floats(0, 1, exclude_min=True)),
    ),
}


def a_model(model: type[WireT]) -> st.SearchStrategy[WireT]:
    """Any valid instance of `model`."""
    if model in _BY_HAND:
        return _BY_HAND[model]()
    fields = {
        name: st.from_regex(r"1\.[0-9]{1,3}", fullmatch=True)
        if name == "schema_version"
        else _for_type(field.annotation, field.metadata)
        for name, field in model.model_fields.items()
    }
    return st.builds(model, **fields)


def _for_type(annotation: Any, metadata: Iterable[object] = ()) -> Strategy:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _for_type(arguments[0], [*_flat(arguments[1:]), *metadata])
    if origin in (Union, types.UnionType):
        return st.one_of(*(_for_type(argument) for argument in arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        bounds = _bounds(metadata)
        most = min(bounds.get("max_length", 3), bounds.get("min_length", 0) + 3)
        element = _for_type(arguments[0])
        return st.lists(element, min_size=bounds.get("min_length", 0), max_size=most).map(tuple)
    if origin is dict:
        smallest = _bounds(metadata).get("min_length", 0)
        key, value = (_for_type(argument) for argument in arguments)
        return st.dictionaries(key, value, min_size=smallest, max_size=smallest + 2)
    return _for_class(annotation, metadata)


def _for_class(annotation: Any, metadata: Iterable[object]) -> Strategy:
    bounds = _bounds(metadata)
    if annotation is type(None):
        return st.none()
    if issubclass(annotation, Enum):
        return st.sampled_from(annotation)
    if issubclass(annotation, BaseModel):
        return st.deferred(lambda: a_model(annotation))
    return _SIMPLE[annotation](bounds)


def _text(bounds: dict[str, Any]) -> Strategy:
    if "pattern" in bounds:
        return st.from_regex(bounds["pattern"].removeprefix("^").removesuffix("$"), fullmatch=True)
    smallest = bounds.get("min_length", 0)
    return st.text(min_size=smallest, max_size=min(bounds.get("max_length", 30), smallest + 30))


def _integers(bounds: dict[str, Any]) -> Strategy:
    low, high = bounds.get("ge", -(2**63)), bounds.get("le", 2**63 - 1)
    return st.integers(low, bounds["lt"] - 1 if "lt" in bounds else high)


def _floats(bounds: dict[str, Any]) -> Strategy:
    return st.floats(
        bounds.get("ge", bounds.get("gt")),
        bounds.get("le", bounds.get("lt")),
        exclude_min="gt" in bounds,
        exclude_max="lt" in bounds,
        allow_nan=False,
        allow_infinity=False,
    )


_SIMPLE: dict[type, Callable[[dict[str, Any]], Strategy]] = {
    bool: lambda _: st.booleans(),
    str: _text,
    int: _integers,
    float: _floats,
}


def _flat(metadata: Iterable[object]) -> list[object]:
    flat: list[object] = []
    for entry in metadata:
        flat.extend(entry.metadata if isinstance(entry, FieldInfo) else [entry])
    return flat


def _bounds(metadata: Iterable[object]) -> dict[str, Any]:
    """Bounds by name, from annotated-types, StringConstraints and pydantic's own containers."""
    bounds: dict[str, Any] = {}
    for entry in metadata:
        if isinstance(entry, annotated_types.GroupedMetadata) and not isinstance(
            entry, StringConstraints
        ):
            bounds.update(_bounds(entry))
        for name in ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern"):
            value = getattr(entry, name, None)
            if value is not None:
                bounds[name] = value
    return bounds
