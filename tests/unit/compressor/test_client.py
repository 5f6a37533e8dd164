"""The HTTP client, against a transport that answers from a script."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from support.factories import NOW, a_manifest, a_measurement, a_ref, a_signed_manifest
from trimtab_compressor.client import PAUSES_S, HttpControlPlane
from trimtab_protocol.api import Artifact, Problem, Trial, TrialSpec, TrialState
from trimtab_protocol.errors import (
    ConfigError,
    ErrorCode,
    ProtocolError,
    RejectedError,
    TransientError,
)
from trimtab_protocol.rollout import Rollout, RolloutSpec, RolloutState

Handler = Callable[[httpx.Request], httpx.Response]
SPEC = TrialSpec(name="digits", version=1, device_class="pi4")


class Wire:
    """A server and what it saw."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.pauses_s: list[float] = []
        self.told: list[str] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self) -> HttpControlPlane:
        return HttpControlPlane(
            "http://plane:8080/",
            "secret",
            report=self.told.append,
            transport=httpx.MockTransport(self.handle),
            sleep=self.pauses_s.append,
        )


def answer(model: Artifact | Trial | Rollout | Problem, status: int = 200) -> httpx.Response:
    return httpx.Response(status, content=model.model_dump_json())


def a_trial(state: TrialState) -> Trial:
    measurement = a_measurement() if state is TrialState.MEASURED else None
    return Trial(
        trial_id="t1",
        spec=SPEC,
        artifact=a_ref(),
        state=state,
        measurement=measurement,
        created_at=NOW,
    )


def an_artifact(version: int, name: str = "digits") -> Artifact:
    manifest = a_manifest(name=name, version=version)
    return Artifact(ref=manifest.ref(), signed=a_signed_manifest(manifest), created_at=NOW)


def test_an_artifact_goes_as_payload_then_manifest_with_the_token() -> None:
    wire = Wire(httpx.Response(201), answer(an_artifact(1), 201))
    with wire.client() as plane:
        found = plane.push(a_signed_manifest(), b"payload")
    put, post = wire.requests
    assert found.ref == a_ref()
    assert put.method == "PUT"
    assert put.url.path == f"/api/v1/payloads/{a_ref().sha256}"
    assert put.content == b"payload"
    assert post.url.path == "/api/v1/artifacts"
    assert json.loads(post.content)["manifest_json"] == a_signed_manifest().manifest_json
    assert {row.headers["Authorization"] for row in wire.requests} == {"Bearer secret"}


def test_artifacts_of_other_names_are_left_out_and_versions_are_in_order() -> None:
    rows = [an_artifact(2), an_artifact(1, "other"), an_artifact(1)]
    body = "[" + ",".join(row.model_dump_json() for row in rows) + "]"
    found = Wire(httpx.Response(200, content=body)).client().list_artifacts("digits")
    assert [row.ref.version for row in found] == [1, 2]


def test_a_trial_is_waited_for_until_it_has_ended() -> None:
    states = (TrialState.QUEUED, TrialState.QUEUED, TrialState.ASKED, TrialState.MEASURED)
    wire = Wire(*(answer(a_trial(state)) for state in states))
    assert wire.client().run_trial(SPEC).measurement is not None
    assert [row.method for row in wire.requests] == ["POST", "GET", "GET", "GET"]
    assert len(wire.told) == 1
    assert "class pi4; is one online?" in wire.told[0]
    assert "wait_s=" in str(wire.requests[1].url)


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.EXPIRED])
def test_a_trial_that_fails_is_an_answer_and_no_error(state: TrialState) -> None:
    assert Wire(answer(a_trial(state))).client().run_trial(SPEC).state is state


def a_rollout(state: RolloutState) -> Rollout:
    spec = RolloutSpec(name="digits", version=1)
    return Rollout(
        rollout_id="r1", spec=spec, artifact=a_ref(), state=state, stage=0, created_at=NOW
    )


def test_a_rollout_is_waited_for_until_it_has_ended() -> None:
    wire = Wire(answer(a_rollout(RolloutState.RUNNING)), answer(a_rollout(RolloutState.REFUSED)))
    found = wire.client().run_rollout(RolloutSpec(name="digits", version=1), max_wait_s=60.0)
    assert found.state is RolloutState.REFUSED


def test_a_rollout_that_never_ends_is_given_up() -> None:
    wire = Wire(answer(a_rollout(RolloutState.RUNNING)))
    with pytest.raises(TransientError, match=r"rollout r1 .* has not ended"):
        wire.client().run_rollout(RolloutSpec(name="digits", version=1), max_wait_s=-1.0)


def test_a_connection_that_comes_back_is_used_and_each_retry_is_told() -> None:
    down = httpx.ConnectError("refused")
    wire = Wire(down, down, httpx.Response(200, content="[]"))
    assert wire.client().list_artifacts("digits") == []
    assert wire.pauses_s == list(PAUSES_S[:2])
    assert len(wire.told) == 2
    assert "http://plane:8080" in wire.told[0]


def test_a_server_that_stays_away_is_a_transient_error_that_names_it() -> None:
    wire = Wire(httpx.ConnectError("refused"))
    with pytest.raises(TransientError, match=r"http://plane:8080 cannot be reached") as caught:
        wire.client().run_trial(SPEC)
    assert caught.value.code is ErrorCode.TRANSIENT_CONTROL_PLANE
    assert wire.pauses_s == list(PAUSES_S)


def test_a_busy_server_is_asked_again() -> None:
    wire = Wire(httpx.Response(503), httpx.Response(200, content="[]"))
    assert wire.client().list_artifacts("digits") == []


def test_what_creates_something_is_not_sent_twice_when_it_may_have_arrived() -> None:
    wire = Wire(httpx.ReadTimeout("slow"))
    with pytest.raises(TransientError):
        wire.client().run_trial(SPEC)
    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    ("code", "status", "branch"),
    [
        (ErrorCode.PROTOCOL_CONFLICT, 409, ProtocolError),
        (ErrorCode.PROTOCOL_UNAUTHORIZED, 401, ProtocolError),
        (ErrorCode.CONFIG_INVALID, 422, ConfigError),
        (ErrorCode.REJECTED_DEVICE_CLASS, 422, RejectedError),
        (ErrorCode.TRANSIENT_BUSY, 429, TransientError),
    ],
)
def test_a_problem_becomes_the_right_branch(
    code: ErrorCode, status: int, branch: type[Exception]
) -> None:
    problem = Problem(title="no", status=status, detail="because", code=code)
    with pytest.raises(branch, match="because") as caught:
        Wire(answer(problem, status)).client().run_trial(SPEC)
    assert getattr(caught.value, "code", None) is code


def test_an_answer_of_something_else_is_no_control_plane() -> None:
    with pytest.raises(ProtocolError, match="404 without a reason"):
        Wire(httpx.Response(404, content="<html>")).client().list_artifacts("x")
    with pytest.raises(ProtocolError, match="no list of artifacts"):
        Wire(httpx.Response(200, content="{}")).client().list_artifacts("x")
    with pytest.raises(ProtocolError):
        Wire(httpx.Response(200, content="{}")).client().run_trial(SPEC)
