"""The API over ASGI, every answer and every error."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from support.api_desk import TOKEN, ApiDesk
from support.artifacts import TEST_PRIVATE_KEY, make_artifact
from support.fleet_facts import Facts
from trimtab_deploy.api.problems import problem_response, status_of
from trimtab_deploy.passwords import is_password
from trimtab_protocol.api import DeviceCredentials, Problem, ServerFacts, Trial, TrialState
from trimtab_protocol.errors import ErrorCode, StorageError
from trimtab_protocol.manifest import SignedManifest
from trimtab_protocol.rollout import Rollout, RolloutState
from trimtab_protocol.signing import key_id_of, public_key_of, read_manifest, sign_text

PAYLOAD = os.urandom(5000)
Story = Callable[[ApiDesk, httpx.AsyncClient], Awaitable[None]]


def run(folder: Path, story: Story, **more: object) -> None:
    async def inside() -> None:
        desk = ApiDesk(folder, **more)  # type: ignore[arg-type]
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(desk.app, raise_app_exceptions=False),
            base_url="http://test/api/v1",
            headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        ) as http:
            await story(desk, http)
        desk.database.close()

    asyncio.run(asyncio.wait_for(inside(), 30))


def problem(answer: httpx.Response) -> Problem:
    assert answer.headers["content-type"] == "application/problem+json"
    found = Problem.model_validate_json(answer.content)
    assert found.status == answer.status_code
    return found


async def push(
    http: httpx.AsyncClient, signed: SignedManifest, payload: bytes = PAYLOAD
) -> httpx.Response:
    sha256 = read_manifest(signed).payload.sha256
    answer = await http.put(f"/payloads/{sha256}", content=payload)
    assert answer.status_code in (200, 201), answer.text
    return await http.post("/artifacts", content=signed.model_dump_json())


def test_without_the_token_nothing_but_health_is_answered(tmp_path: Path) -> None:
    async def story(desk: ApiDesk, http: httpx.AsyncClient) -> None:
        for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": TOKEN}):
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(desk.app), base_url="http://test", headers=headers
            ) as stranger:
                assert (await stranger.get("/healthz")).json() == {"status": "ok"}
                for path in ("/api/v1/devices", "/api/v1/openapi.json", "/elsewhere"):
                    answer = await stranger.get(path)
                    assert answer.status_code == 401
                    assert answer.headers["www-authenticate"] == "Bearer"
                    assert problem(answer).code is ErrorCode.PROTOCOL_UNAUTHORIZED
        assert (await http.get("/openapi.json")).status_code == 200

    run(tmp_path, story)


def test_the_server_says_what_it_is(tmp_path: Path) -> None:
    async def story(desk: ApiDesk, http: httpx.AsyncClient) -> None:
        facts = ServerFacts.model_validate_json((await http.get("/server")).content)
        assert facts == desk.parts.facts

    run(tmp_path, story)


def test_a_payload_is_stored_once(tmp_path: Path) -> None:
    async def story(desk: ApiDesk, http: httpx.AsyncClient) -> None:
        sha256 = hashlib.sha256(PAYLOAD).hexdigest()
        assert (await http.put(f"/payloads/{sha256}", content=PAYLOAD)).status_code == 201
        assert (await http.put(f"/payloads/{sha256}", content=PAYLOAD)).status_code == 200
        assert desk.payloads.length_bytes(sha256) == len(PAYLOAD)

    run(tmp_path, story)


def test_a_payload_with_another_digest_or_too_long_is_refused(tmp_path: Path) -> None:
    async def story(desk: ApiDesk, http: httpx.AsyncClient) -> None:
        sha256 = hashlib.sha256(PAYLOAD).hexdigest()
        other = await http.put(f"/payloads/{sha256}", content=b"other")
        assert other.status_code == 400
        assert problem(other).code is ErrorCode.TRUST_PAYLOAD_DIGEST
        long = await http.put(f"/payloads/{sha256}", content=PAYLOAD * 2)
        assert long.status_code == 413
        assert problem(long).code is ErrorCode.TRUST_PAYLOAD_LENGTH
        named = await http.put("/payloads/model", content=PAYLOAD)
        assert named.status_code == 400
        assert problem(named).code is ErrorCode.PROTOCOL_MALFORMED
        assert desk.payloads.length_bytes(sha256) is None

    run(tmp_path, story, max_payload_bytes=6000)


def test_an_artifact_is_registered_listed_and_never_changed(tmp_path: Path) -> None:
    async def story(_: ApiDesk, http: httpx.AsyncClient) -> None:
        signed, _payload = make_artifact("m", 1, PAYLOAD)
        first = await push(http, signed)
        assert first.status_code == 201
        assert (await push(http, signed)).status_code == 200
        assert (await http.get("/artifacts")).json() == [first.json()]
        assert (await http.get("/artifacts/m/1")).json() == first.json()
        stored = SignedManifest.model_validate(first.json()["signed"])
        assert stored == signed
        other, payload = make_artifact("m", 1, b"other")
        conflict = await push(http, other, payload)
        assert conflict.status_code == 409
        assert problem(conflict).code is ErrorCode.PROTOCOL_CONFLICT
        missing = await http.get("/artifacts/m/2")
        assert missing.status_code == 404
        assert problem(missing).code is ErrorCode.PROTOCOL_UNKNOWN

    run(tmp_path, story)


def test_an_artifact_needs_its_payload_first(tmp_path: Path) -> None:
    async def story(_: ApiDesk, http: httpx.AsyncClient) -> None:
        signed, _payload = make_artifact("m", 1, PAYLOAD)
        answer = await http.post("/artifacts", content=signed.model_dump_json())
        assert answer.status_code == 404
        found = problem(answer)
        assert found.code is ErrorCode.PROTOCOL_UNKNOWN
        assert "PUT /api/v1/payloads/" in found.detail

    run(tmp_path, story)


def test_a_manifest_that_does_not_fit_its_payload_is_refused(tmp_path: Path) -> None:
    async def story(_: ApiDesk, http: httpx.AsyncClient) -> None:
        good = read_manifest(make_artifact("m", 1, PAYLOAD)[0])
        wrong_chunks = read_manifest(make_artifact("m", 1, PAYLOAD[::-1])[0]).payload
        for change, code in (
            ({"sha256": good.payload.sha256}, ErrorCode.TRUST_CHUNK_DIGEST),
            (
                {"sha256": good.payload.sha256, "length_bytes": len(PAYLOAD) - 1},
                ErrorCode.TRUST_PAYLOAD_DIGEST,
            ),
        ):
            payload = wrong_chunks.model_copy(update=change)
            text = good.model_copy(update={"payload": payload}).model_dump_json(exclude_none=True)
            signed = SignedManifest(
                manifest_json=text, signatures=(sign_text(text, TEST_PRIVATE_KEY),)
            )
            answer = await push(http, signed)
            assert answer.status_code == 400
            assert problem(answer).code is code

    run(tmp_path, story)


def test_with_trusted_keys_only_their_artifacts_are_taken(tmp_path: Path) -> None:
    async def story(_: ApiDesk, http: httpx.AsyncClient) -> None:
        signed, _payload = make_artifact("m", 1, PAYLOAD)
        assert (await push(http, signed)).status_code == 201
        stranger, _payload = make_artifact("m", 2, PAYLOAD, private_key=b"x" * 32)
        assert problem(await push(http, stranger)).code is ErrorCode.TRUST_KEY
        forged = signed.model_copy(
            update={"manifest_json": signed.manifest_json.replace('"version":1', '"version":3')}
        )
        assert problem(await push(http, forged)).code is ErrorCode.TRUST_SIGNATURE

    public = public_key_of(TEST_PRIVATE_KEY)
    run(tmp_path, story, trusted_keys={key_id_of(public): public})


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/artifacts", "{}", "manifest_json"),
        ("/artifacts", "not json", "JSON"),
        ("/devices", '{"device": "Not A Name"}', "device"),
        ("/trials", '{"name": "m", "version": 0, "device_class": "c"}', "version"),
        ("/trials", '{"name": "m", "version": 1, "device_class": "c", "expires_s": -1}', "expires"),
        ("/rollouts", '{"name": "m", "version": 1, "stages": [{"count": 1, "ratio": 1}]}', "stage"),
        ("/rollouts", '{"name": "m", "version": 1, "stages": []}', "stages"),
    ],
)
def test_what_is_malformed_is_named(tmp_path: Path, path: str, body: str, named: str) -> None:
    async def story(_: ApiDesk, http: httpx.AsyncClient) -> None:
        answer = await http.post(path, content=body)
        assert answer.status_code == 422
        found = problem(answer)
        assert found.code is ErrorCode.PROTOCOL_MALFORMED
        assert named in found.detail

    run(tmp_path, story)


def test_unknown_paths_methods_and_waits_are_problems_too(tmp_path: Path) -> None:
    async def story(_: ApiDesk, http: httpx.AsyncClient) -> None:
        assert problem(await http.get("/nothing")).status == 404
        assert problem(await http.delete("/devices")).status == 405
        assert problem(await http.get("/trials/t?wait_s=61")).status == 422
        for path in ("/trials/t", "/rollouts/r", "/devices/d"):
            answer = await http.get(path)
            assert answer.status_code == 404
            assert problem(answer).code is ErrorCode.PROTOCOL_UNKNOWN
        assert (await http.post("/rollouts/r/abort")).status_code == 404

    run(tmp_path, story)


def test_a_device_gets_its_password_once_and_the_broker_its_verifier(tmp_path: Path) -> None:
    async def story(desk: ApiDesk, http: httpx.AsyncClient) -> None:
        answer = await http.post("/devices", json={"device": "pi-1", "labels": {"room": "lab"}})
        assert answer.status_code == 201
        found = DeviceCredentials.model_validate_json(answer.content)
        assert (found.username, found.mqtt_host, found.mqtt_port) == ("pi-1", "mq", 1883)
        assert is_password(found.password, desk.broker.admitted["pi-1"])
        again = await http.post("/devices", json={"device": "pi-1"})
        assert again.status_code == 409
        shown = await http.get("/devices/pi-1")
        assert shown.json()["labels"] == {"room": "lab"}
        for text in (shown.text, (await http.get("/devices")).text):
            assert found.password not in text
            assert desk.broker.admitted["pi-1"] not in text

    run(tmp_path, story)


def test_a_broker_that_restarts_does_not_cost_the_device_its_password(tmp_path: Path) -> None:
    async def story(desk: ApiDesk, http: httpx.AsyncClient) -> None:
        desk.broker.is_down = True
        assert (await http.post("/devices", json={"device": "pi-1"})).status_code == 201

    run(tmp_path, story)


def test_waiting_for_a_trial_ends_with_it(tmp_path: Path) -> None:
    async def story(desk: ApiDesk, http: httpx.AsyncClient) -> None:
        await push(http, make_artifact("m", 1, PAYLOAD)[0])
        made = await http.post(
            "/trials", json={"name": "m", "version": 1, "device_class": "sim", "expires_s": 5}
        )
        trial = Trial.model_validate_json(made.content)
        assert (made.status_code, trial.state) == (201, TrialState.QUEUED)
        waiting = asyncio.create_task(http.get(f"/trials/{trial.trial_id}?wait_s=20"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        desk.now += 6
        await desk.conductor.step()
        ended = Trial.model_validate_json((await waiting).content)
        assert ended.state is TrialState.EXPIRED

    run(tmp_path, story)


def test_waiting_is_over_when_the_time_is(tmp_path: Path) -> None:
    async def story(_: ApiDesk, http: httpx.AsyncClient) -> None:
        await push(http, make_artifact("m", 1, PAYLOAD)[0])
        made = await http.post("/trials", json={"name": "m", "version": 1, "device_class": "sim"})
        answer = await http.get(f"/trials/{made.json()['trial_id']}?wait_s=0.2")
        assert answer.json()["state"] == "queued"

    run(tmp_path, story)


def test_a_rollout_is_begun_shown_refused_twice_and_aborted(tmp_path: Path) -> None:
    async def story(desk: ApiDesk, http: httpx.AsyncClient) -> None:
        await push(http, make_artifact("m", 1, PAYLOAD)[0])
        nobody = await http.post("/rollouts", json={"name": "m", "version": 1})
        assert problem(nobody).code is ErrorCode.PROTOCOL_UNKNOWN
        await desk.write(lambda row: Facts(row).add_device("pi-1"))
        made = await http.post("/rollouts", json={"name": "m", "version": 1})
        assert made.status_code == 201
        rollout = Rollout.model_validate_json(made.content)
        await desk.conductor.step()
        assert [row.topic for row in desk.publisher.on("desired")] == [
            "trimtab/v1/here/d/pi-1/desired"
        ]
        assert (await http.post("/rollouts", json={"name": "m", "version": 1})).status_code == 409
        listed = (await http.get("/rollouts")).json()
        assert [row["rollout_id"] for row in listed] == [rollout.rollout_id]
        path = f"/rollouts/{rollout.rollout_id}"
        waiting = asyncio.create_task(http.get(f"{path}?wait_s=20"))
        await asyncio.sleep(0.05)
        aborted = Rollout.model_validate_json((await http.post(f"{path}/abort")).content)
        assert aborted.state is RolloutState.ABORTED
        assert Rollout.model_validate_json((await waiting).content) == aborted
        assert len(desk.publisher.on("desired")) == 2

    run(tmp_path, story)


def test_a_disk_that_fails_is_a_problem_and_not_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_work: object) -> None:
        raise StorageError("disk full")

    async def story(desk: ApiDesk, http: httpx.AsyncClient) -> None:
        monkeypatch.setattr(desk.database, "run", fail)
        answer = await http.get("/devices")
        assert answer.status_code == 500
        assert problem(answer).code is ErrorCode.STORAGE_WRITE

    run(tmp_path, story)


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_has_a_status_and_a_title(code: ErrorCode) -> None:
    assert 400 <= status_of(code) < 600
    body = Problem.model_validate_json(bytes(problem_response(code, "x").body))
    assert body.title != "Error"
