"""[P-2.1] [P-2.2] [P-2.3] [P-2.4] What is encoded is what is read, and nothing else is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from support import factories
from support.strategies import a_model
from trimtab_protocol import api, base, budget, manifest, measurement, messages, reading, rollout
from trimtab_protocol.base import WireModel, parse_wire
from trimtab_protocol.errors import ErrorCode, ProtocolError
from trimtab_protocol.messages import (
    Ack,
    Ask,
    Birth,
    DeploymentReport,
    Desired,
    EventReport,
    Get,
    Message,
    Policy,
    Reported,
    Status,
    TrialReport,
    encode,
    parse_message,
    parse_report,
)

MESSAGES: list[type[Message]] = [Birth, Status, Desired, Reported, Ask, Ack, Get]
REPORTS: list[type[Message]] = [TrialReport, DeploymentReport, EventReport]
MODULES = (api, base, budget, manifest, measurement, messages, reading, rollout)

EVERY_MODEL: list[type[WireModel]] = sorted(
    {
        value
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, WireModel)
        and value is not WireModel
        and not name.startswith("_")
    },
    key=lambda model: model.__name__,
)

EXAMPLES: list[Message] = [
    factories.a_birth(),
    factories.a_status(),
    factories.a_desired(),
    factories.a_reported(),
    factories.an_ask(),
    Ack(report_ids=("report-1",)),
    factories.a_get(),
    factories.a_trial_report(),
    factories.a_deployment_report(),
    factories.an_event_report(),
]
by_name = pytest.mark.parametrize("sent", EXAMPLES, ids=lambda sent: type(sent).__name__)


def _read(kind: type[Message], payload: bytes | str) -> Message:
    return parse_report(payload) if kind in REPORTS else parse_message(kind, payload)


@pytest.mark.parametrize("model", EVERY_MODEL, ids=lambda model: model.__name__)
@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_every_model_of_the_wire_comes_back_as_it_was_sent(
    model: type[WireModel], data: st.DataObject
) -> None:
    """[P-2.1]"""
    sent = data.draw(a_model(model))
    assert parse_wire(model, encode(sent), what="it") == sent


@pytest.mark.parametrize("kind", [*MESSAGES, *REPORTS], ids=lambda kind: kind.__name__)
@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_every_message_comes_back_through_its_own_parser(
    kind: type[Message], data: st.DataObject
) -> None:
    """[P-2.1]"""
    sent = data.draw(a_model(kind))
    assert _read(kind, encode(sent)) == sent


@by_name
def test_the_schema_version_is_the_first_field_of_a_message(sent: Message) -> None:
    """[P-2.1]"""
    assert next(iter(json.loads(encode(sent)))) == "schema_version"


@by_name
def test_an_absent_field_is_left_out_of_a_message(sent: Message) -> None:
    """[P-2.1]"""
    assert not _has_null(json.loads(encode(sent)))


@by_name
@given(field=st.from_regex(r"new_[a-z]{1,8}", fullmatch=True), value=st.sampled_from([1, "x", {}]))
def test_unknown_fields_are_ignored_at_every_depth(
    sent: Message, field: str, value: object
) -> None:
    """[P-2.2]"""
    document = json.loads(encode(sent))
    for node in _objects_of_models(document):
        node[field] = value
    assert _read(type(sent), json.dumps(document)) == sent


@by_name
@pytest.mark.parametrize("version", ["0.9", "2.0", "10.0", "11", "", "v1", "one", "-1"])
def test_an_unknown_major_version_is_refused(sent: Message, version: str) -> None:
    """[P-2.3]"""
    document = {**json.loads(encode(sent)), "schema_version": version}
    with pytest.raises(ProtocolError) as caught:
        _read(type(sent), json.dumps(document))
    assert caught.value.code is ErrorCode.PROTOCOL_VERSION


@pytest.mark.parametrize("kind", [*MESSAGES, *REPORTS], ids=lambda kind: kind.__name__)
def test_a_major_version_that_looks_entirely_different_is_still_named_a_version(
    kind: type[Message],
) -> None:
    """[P-2.3]"""
    with pytest.raises(ProtocolError) as caught:
        _read(kind, '{"schema_version": "2.0", "all": "new"}')
    assert caught.value.code is ErrorCode.PROTOCOL_VERSION


@by_name
@pytest.mark.parametrize("version", ["1", "1.0", "1.1", "1.999"])
def test_any_minor_version_is_read(sent: Message, version: str) -> None:
    """[P-2.3]"""
    document = {**json.loads(encode(sent)), "schema_version": version}
    assert _read(type(sent), json.dumps(document)).schema_version == version


@by_name
def test_a_message_without_a_version_is_read_as_the_first_one(sent: Message) -> None:
    """[P-2.3]"""
    document = json.loads(encode(sent))
    del document["schema_version"]
    assert _read(type(sent), json.dumps(document)).schema_version == "1.0"


@pytest.mark.parametrize("kind", [*MESSAGES, *REPORTS], ids=lambda kind: kind.__name__)
@given(garbage=st.one_of(st.binary(), st.text()))
@example(garbage=b"")
@example(garbage=b"null")
@example(garbage=b"[]")
@example(garbage=b"[" * 100_000)
@example(garbage=b'{"a":' * 5_000)
@example(garbage=b"\xff\xfe{}")
@example(garbage='{"sequence": "\ud800"}')
@example(garbage=b'{"sequence": ' + b"9" * 5000 + b"}")
@example(garbage=b'{"sent_at": 1e999}')
@example(garbage=b'{"sent_at": NaN}')
@example(garbage=b'{"schema_version": 1}')
@example(garbage=b'{"schema_version": null}')
def test_garbage_gives_a_protocol_error_and_nothing_else(
    kind: type[Message], garbage: bytes | str
) -> None:
    """[P-2.1]"""
    with pytest.raises(ProtocolError) as caught:
        _read(kind, garbage)
    assert caught.value.code is ErrorCode.PROTOCOL_MALFORMED


@by_name
@given(data=st.data())
def test_a_message_with_a_changed_byte_is_read_or_is_a_protocol_error(
    sent: Message, data: st.DataObject
) -> None:
    """[P-2.1]"""
    payload = bytearray(encode(sent))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        _read(type(sent), bytes(payload))
    except ProtocolError:
        return


@by_name
def test_a_message_that_is_cut_off_is_refused(sent: Message) -> None:
    """[P-2.1]"""
    payload = encode(sent)
    for length in range(0, len(payload), max(1, len(payload) // 50)):
        with pytest.raises(ProtocolError):
            _read(type(sent), payload[:length])


def test_a_report_followed_by_more_json_is_refused() -> None:
    """[P-2.1]"""
    payload = encode(factories.an_event_report())
    with pytest.raises(ProtocolError):
        parse_report(payload + b',"report":' + encode(factories.an_event_report("report-2")))


def test_a_report_that_is_not_utf8_is_refused() -> None:
    """[P-2.1]"""
    payload = encode(factories.an_event_report(event="caf#"))
    with pytest.raises(ProtocolError):
        parse_report(payload.replace(b"#", b"\xe9"))


def test_a_report_of_an_unknown_kind_is_refused() -> None:
    """[P-2.1]"""
    document = {**json.loads(encode(factories.an_event_report())), "kind": "gossip"}
    with pytest.raises(ProtocolError, match="kind"):
        parse_report(json.dumps(document))


def test_reports_are_told_apart_by_their_kind() -> None:
    """[P-4.3]"""
    sent = [
        factories.a_trial_report(),
        factories.a_deployment_report(),
        factories.an_event_report(),
    ]
    assert [type(parse_report(encode(report))) for report in sent] == REPORTS


def test_a_report_with_an_error_code_from_a_newer_peer_keeps_the_code() -> None:
    """[P-2.4]"""
    document = json.loads(encode(factories.a_deployment_report(error_code=ErrorCode.MODEL_LOAD)))
    document["error_code"] = "model.melted"
    report = parse_report(json.dumps(document))
    assert isinstance(report, DeploymentReport)
    assert report.error_code is not None
    assert report.error_code.value == "model.melted"
    assert json.loads(encode(report))["error_code"] == "model.melted"


def test_a_message_cannot_be_changed_after_it_was_built() -> None:
    """[P-2.2]"""
    status = factories.a_status()
    with pytest.raises(ValidationError):
        status.boot_id = "other"  # type: ignore[misc]  # that is the test


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_cannot_be_sent(number: float) -> None:
    """[P-2.2]"""
    with pytest.raises(ValidationError):
        Policy(probation_s=number)
    with pytest.raises(ValidationError):
        factories.a_reported().model_validate(
            {**_as_dict(factories.a_reported()), "sent_at": number}
        )


def test_a_field_whose_default_is_a_value_does_not_lose_its_none() -> None:
    """[P-2.1] Absent fields are left out, so None must not stand for anything but the default."""
    lossy = [
        f"{model.__name__}.{name}"
        for model in EVERY_MODEL
        for name, field in model.model_fields.items()
        if type(None) in getattr(field.annotation, "__args__", ())
        and field.default is not None
        and not field.is_required()
    ]
    assert lossy == ["Gate.max_p90_ratio"]  # which writes its None out, see rollout.py


@pytest.mark.parametrize(
    "indices",
    [(), (-1,), tuple(range(messages.MAX_GET_INDICES + 1))],
    ids=["none", "negative", "too many"],
)
def test_a_get_asks_for_some_chunks_but_not_for_too_many(indices: tuple[int, ...]) -> None:
    """[P-6.3]"""
    with pytest.raises(ValidationError):
        factories.a_get(indices=indices)


@pytest.mark.parametrize("chunk_bytes", [1023, 1024**2 + 1])
def test_a_get_names_a_chunk_size_within_the_bounds(chunk_bytes: int) -> None:
    """[P-6.1]"""
    with pytest.raises(ValidationError):
        factories.a_get(chunk_bytes=chunk_bytes)


def test_an_ack_carries_at_most_a_thousand_ids() -> None:
    """[P-4.5]"""
    Ack(report_ids=("r",) * 1000)
    with pytest.raises(ValidationError):
        Ack(report_ids=("r",) * 1001)


def test_the_largest_get_fits_into_the_narrowest_packet() -> None:
    """[P-2.5]"""
    most = 1024**3 // 1024 - 1
    largest = factories.a_get(indices=(most,) * messages.MAX_GET_INDICES)
    assert len(encode(largest)) < 128 * 1024


def _as_dict(model: WireModel) -> dict[str, Any]:
    return model.model_dump()


def _has_null(node: object) -> bool:
    if isinstance(node, dict):
        return any(_has_null(value) for value in node.values())
    if isinstance(node, list):
        return any(_has_null(value) for value in node)
    return node is None


MAPS = {"models", "inputs", "outputs", "limits", "parameters", "budgets", "labels", "tools"}
"""Fields whose keys are data, where a new key is not an unknown field."""


def _objects_of_models(node: object, name: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if isinstance(node, list):
        for value in node:
            found += _objects_of_models(value)
    if isinstance(node, dict):
        found += [] if name in MAPS else [node]
        for key, value in node.items():
            found += _objects_of_models(value, key)
    return found
