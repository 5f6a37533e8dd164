"""A manifest that its owner signed and that makes no sense: one error, and the device keeps its model."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from support.agent_rig import PROBATION_S, AgentRig
from support.artifacts import TEST_PRIVATE_KEY, make_artifact
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import SignedManifest
from trimtab_protocol.messages import Desired, DesiredModel, Policy
from trimtab_protocol.signing import sign_text

CHUNK = 1024
OLD = bytes(i % 251 for i in range(2 * CHUNK + 10))
NEW = bytes(i % 241 for i in range(3 * CHUNK + 3))
Place = tuple[str | int, ...]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


def new_document() -> dict[str, Any]:
    signed, _ = make_artifact("digits", 2, NEW, chunk_bytes=CHUNK)
    document: dict[str, Any] = json.loads(signed.manifest_json)
    return document


def places_of(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every place in a document."""
    rows: Any = ()
    if isinstance(value, dict):
        rows = value.items()
    elif isinstance(value, list):
        rows = enumerate(value)
    for key, inner in rows:
        yield (*at, key)
        yield from places_of(inner, (*at, key))


PLACES = sorted(places_of(new_document()), key=str)


def changed(place: Place, value: Any) -> dict[str, Any]:
    """The document with one value put in another's place."""
    document = new_document()
    inner: Any = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return document


def signed_text(text: str) -> SignedManifest:
    return SignedManifest(manifest_json=text, signatures=(sign_text(text, TEST_PRIVATE_KEY),))


def deploy(rig: AgentRig, signed: SignedManifest) -> None:
    """The old model is committed; then this one is wanted."""
    rig.desire(*make_artifact("digits", 1, OLD, chunk_bytes=CHUNK))
    rig.settle()
    _, payload = make_artifact("digits", 2, NEW, chunk_bytes=CHUNK)
    rig.delivery.payloads = _AnyPayload(payload)
    policy = Policy(probation_s=PROBATION_S)
    model = DesiredModel(deployment_id="hostile", signed=signed, policy=policy)
    rig.deployments.take(Desired(sequence=99, models={"digits": model}))
    rig.settle()


class _AnyPayload(dict[str, bytes]):
    """A control plane that has the same bytes for every digest."""

    def __init__(self, payload: bytes) -> None:
        super().__init__()
        self._payload = payload

    def __missing__(self, _: str) -> bytes:
        return self._payload


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(PLACES), json_values)
@example(("budgets",), {"a\rb": None})
def test_any_value_anywhere_in_a_manifest_is_run_or_refused_and_never_harms(
    place: Place, value: Any
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rig = AgentRig(Path(folder))
        deploy(rig, signed_text(json.dumps(changed(place, value))))
        active = rig.active()
        record = rig.journal.newest("digits")
    assert active is not None
    assert record is not None
    if record.state is DeploymentState.COMMITTED:
        return
    assert str(active) == "digits@1"
    assert record.error_code is not None
    assert record.detail
    assert len(record.detail.splitlines()) == 1


@pytest.mark.parametrize(
    ("place", "value", "code"),
    [
        (("version",), 2**60, ErrorCode.PROTOCOL_MALFORMED),
        (("version",), "two", ErrorCode.PROTOCOL_MALFORMED),
        (("schema_version",), "9.0", ErrorCode.PROTOCOL_VERSION),
        (("payload", "length_bytes"), 2**60, ErrorCode.PROTOCOL_MALFORMED),
        (("payload", "length_bytes"), -1, ErrorCode.PROTOCOL_MALFORMED),
        (("payload", "chunk_bytes"), 2**40, ErrorCode.PROTOCOL_MALFORMED),
        (("payload", "sha256"), "../../etc/passwd", ErrorCode.PROTOCOL_MALFORMED),
        (("name",), "../digits", ErrorCode.PROTOCOL_MALFORMED),
        (("io", "inputs", 0, "shape"), "wide", ErrorCode.PROTOCOL_MALFORMED),
        (("golden", "vectors", 0, "inputs"), {"z": None}, ErrorCode.PROTOCOL_MALFORMED),
        (("golden",), None, ErrorCode.PROTOCOL_MALFORMED),
        (("golden", "vectors"), [], ErrorCode.PROTOCOL_MALFORMED),
    ],
)
def test_absurd_values_in_a_manifest_have_their_code(
    tmp_path: Path, place: Place, value: Any, code: ErrorCode
) -> None:
    rig = AgentRig(tmp_path)
    deploy(rig, signed_text(json.dumps(changed(place, value))))
    assert rig.error_code() is code
    assert str(rig.active()) == "digits@1"


def test_a_field_that_this_version_does_not_know_does_no_harm(tmp_path: Path) -> None:
    rig = AgentRig(tmp_path)
    document = new_document() | {"colour": {"of": ["the", "sky"]}}
    document["payload"]["colour"] = 7
    deploy(rig, signed_text(json.dumps(document)))
    assert rig.state() is DeploymentState.COMMITTED
    assert str(rig.active()) == "digits@2"
