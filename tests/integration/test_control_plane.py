"""The real control plane as a process, with both brokers, and devices that speak the contract."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from support.artifacts import make_artifact
from support.control_plane import RunningControlPlane, cli
from support.simulated_device import Behaviour, NotHereError, SimulatedDevice
from trimtab_deploy.broker.mosquitto import find_mosquitto
from trimtab_protocol.api import TrialSpec, TrialState
from trimtab_protocol.errors import ErrorCode, ProtocolError
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import Manifest, SignedManifest
from trimtab_protocol.messages import DeploymentReport, Presence
from trimtab_protocol.rollout import Gate, OnFailure, RolloutSpec, RolloutState, StageSpec
from trimtab_protocol.signing import read_manifest
from trimtab_protocol.topics import Leaf, device_topic

PAYLOADS = {version: os.urandom(150_000 + version) for version in (1, 2, 3)}
NO_LIMIT = Gate(deadline_s=60)

MOSQUITTO = pytest.param(
    "mosquitto",
    marks=[
        pytest.mark.mosquitto,
        pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto on this machine"),
    ],
)


def wait_for(condition: Callable[[], bool], timeout_s: float = 15.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


class Scene:
    """A control plane, its devices and artifacts, torn down together."""

    def __init__(self, folder: Path, broker: str) -> None:
        self.control = RunningControlPlane(folder, broker).start()
        self.devices: dict[str, SimulatedDevice] = {}

    def add(self, name: str, behaviour: Behaviour | None = None) -> SimulatedDevice:
        device = SimulatedDevice(self.control.add_device(name), behaviour=behaviour)
        self.devices[name] = device
        device.connect()
        client = self.control.client()
        assert wait_for(lambda: client.device(name).presence is Presence.ONLINE)
        return device

    def push(self, version: int, name: str = "kws") -> Manifest:
        signed, payload = make_artifact(name, version, PAYLOADS[version], chunk_bytes=16_384)
        self.control.push(signed, payload)
        return read_manifest(signed)

    def roll_out(self, version: int, **more: object) -> RolloutState:
        client = self.control.client()
        spec = RolloutSpec.model_validate({"name": "kws", "version": version, **more})
        return client.rollout(client.create_rollout(spec).rollout_id, wait_s=30).state

    def close(self) -> None:
        for device in self.devices.values():
            device.close()
        self.control.stop()
        assert self.control.children() == []


@pytest.fixture(params=["amqtt", MOSQUITTO])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    found = Scene(tmp_path / "data", request.param)
    yield found
    found.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Scene]:
    found = Scene(tmp_path / "data", "auto")
    yield found
    found.close()


def test_a_two_stage_rollout_is_committed_on_every_device(scene: Scene) -> None:
    devices = [scene.add(f"pi-{number}") for number in range(3)]
    first, second = scene.push(1), scene.push(2)
    assert scene.roll_out(1) is RolloutState.COMMITTED
    client = scene.control.client()
    began = client.create_rollout(
        RolloutSpec(name="kws", version=2, stages=(StageSpec(count=1), StageSpec(ratio=1.0)))
    )
    ended = client.rollout(began.rollout_id, wait_s=30)
    assert ended.state is RolloutState.COMMITTED, ended.reason
    assert [row.stage for row in ended.devices] == [0, 1, 1]
    assert {row.state for row in ended.devices} == {DeploymentState.COMMITTED}
    assert [verdict.outcome.value for verdict in ended.verdicts] == ["pass", "pass"]
    assert all(row.comparison is not None for row in ended.devices)
    for device in devices:
        assert device.active["kws"] == second.ref()
        assert device.payloads[first.payload.sha256] == PAYLOADS[1]
        assert device.payloads[second.payload.sha256] == PAYLOADS[2]
        assert device.desired[-1].models["kws"].policy.max_p90_ratio == 1.05
        assert wait_for(partial(is_acknowledged, device))


def test_a_trial_is_measured_by_a_device_of_the_class_without_activating_it(scene: Scene) -> None:
    device = scene.add("pi-1")
    scene.push(1)
    client = scene.control.client()
    spec = TrialSpec(name="kws", version=1, device_class="sim")
    trial = client.trial(client.create_trial(spec).trial_id, wait_s=20)
    assert trial.state is TrialState.MEASURED
    assert trial.device == "pi-1"
    assert trial.measurement is not None
    assert trial.measurement.artifact == trial.artifact
    assert device.active == {}


def test_a_device_that_refuses_stops_the_rollout_and_desired_goes_back(scene: Scene) -> None:
    for number in range(3):
        scene.add(f"pi-{number}", Behaviour(refuses={2}))
    first = scene.push(1)
    scene.push(2)
    assert scene.roll_out(1) is RolloutState.COMMITTED
    client = scene.control.client()
    began = client.create_rollout(RolloutSpec(name="kws", version=2))
    ended = client.rollout(began.rollout_id, wait_s=30)
    assert ended.state is RolloutState.REFUSED
    assert "model.golden" in ended.reason
    touched = [row for row in ended.devices if row.state is not None]
    assert [row.state for row in touched] == [DeploymentState.FAILED]
    device = scene.devices[touched[0].device]
    assert wait_for(lambda: len(device.desired) >= 3)
    assert [row.sequence for row in device.desired] == sorted(
        row.sequence for row in device.desired
    )
    back = device.desired[-1].models["kws"]
    assert read_manifest(back.signed).ref() == first.ref()
    assert device.active["kws"] == first.ref()


def test_a_slower_candidate_fails_the_gate_and_every_device_goes_back(desk: Scene) -> None:
    devices = [desk.add(f"pi-{number}", Behaviour(ratio=1.3)) for number in range(2)]
    first = desk.push(1)
    desk.push(2)
    assert desk.roll_out(1) is RolloutState.COMMITTED
    client = desk.control.client()
    began = client.create_rollout(RolloutSpec(name="kws", version=2))
    ended = client.rollout(began.rollout_id, wait_s=30)
    assert ended.state is RolloutState.ROLLED_BACK
    assert "p90 ratio 1.3" in ended.reason
    assert ended.verdicts[0].violations[0].excess_ratio == pytest.approx(1.3 / 1.05 - 1)
    for device in devices:
        assert wait_for(partial(runs, device, first))


def test_with_stop_devices_that_run_it_keep_it(desk: Scene) -> None:
    device = desk.add("pi-1", Behaviour(ratio=1.3))
    desk.push(1)
    second = desk.push(2)
    assert desk.roll_out(1) is RolloutState.COMMITTED
    assert desk.roll_out(2, on_failure=OnFailure.STOP) is RolloutState.REFUSED
    time.sleep(0.3)
    assert device.active["kws"] == second.ref()
    assert read_manifest(device.desired[-1].models["kws"].signed).ref() == second.ref()


def test_a_control_plane_that_is_killed_in_mid_rollout_ends_it_all_the_same(scene: Scene) -> None:
    devices = [
        scene.add(f"pi-{number}", Behaviour(hold_at=DeploymentState.PROBATION))
        for number in range(2)
    ]
    first = scene.push(1)
    client = scene.control.client()
    began = client.create_rollout(RolloutSpec(name="kws", version=1))
    assert wait_for(lambda: any(device.active for device in devices))
    before = scene.control.facts
    scene.control.kill()
    for device in devices:
        device.release()
    scene.control.start()
    assert scene.control.facts.mqtt_port == before.mqtt_port
    client = scene.control.client()
    ended = client.rollout(began.rollout_id, wait_s=45)
    assert ended.state is RolloutState.COMMITTED, ended.reason
    assert all(device.active["kws"] == first.ref() for device in devices)
    assert wait_for(lambda: not any(device.outbox for device in devices))


def test_a_repeated_report_is_kept_once_and_acknowledged_each_time(scene: Scene) -> None:
    device = scene.add("pi-1")
    report = DeploymentReport(
        report_id="twice", sent_at=1.0, deployment_id="none", state=DeploymentState.FAILED
    )
    for times in (1, 2, 3):
        device.report(report)
        assert wait_for(partial(is_acked, device, "twice", times))
    scene.control.stop()
    assert count_reports(scene.control.folder) == 1


def test_a_device_that_writes_for_another_has_no_effect(scene: Scene) -> None:
    honest, forger = scene.add("pi-1"), scene.add("pi-2")
    for leaf, payload in (
        (Leaf.STATUS, honest._presence(Presence.OFFLINE)),
        (Leaf.BIRTH, forger._birth().replace(b'"sim"', b'"forged"')),
    ):
        forger.publish_raw(device_topic("default", "pi-1", leaf), payload, is_retained=True)
    forger.publish(Leaf.REPORT, b"not json")
    time.sleep(0.5)
    found = scene.control.client().device("pi-1")
    assert found.presence is Presence.ONLINE
    assert found.device_class == "sim"


def test_a_payload_that_a_device_has_no_claim_to_is_answered_with_empty_chunks(
    scene: Scene,
) -> None:
    device = scene.add("pi-1")
    manifest = scene.push(1)
    with pytest.raises(NotHereError):
        device.fetch(manifest)
    unknown = read_manifest(make_artifact("kws", 9, b"never pushed")[0])
    with pytest.raises(NotHereError):
        device.fetch(unknown)


def test_an_old_will_does_not_hide_a_new_session_and_a_power_cut_is_seen(scene: Scene) -> None:
    device = scene.add("pi-1")
    client = scene.control.client()
    old_will = device._presence(Presence.OFFLINE)
    device.cut_power()
    assert wait_for(lambda: client.device("pi-1").presence is Presence.OFFLINE)
    device.connect()
    assert wait_for(lambda: client.device("pi-1").presence is Presence.ONLINE)
    device.publish(Leaf.STATUS, old_will)
    time.sleep(0.3)
    assert client.device("pi-1").presence is Presence.ONLINE


def test_an_ask_reaches_a_device_that_was_away_when_it_was_asked(desk: Scene) -> None:
    device = desk.add("pi-1")
    desk.push(1)
    device.behaviour.hold_at = None
    client = desk.control.client()
    device.cut_power()
    assert wait_for(lambda: client.device("pi-1").presence is Presence.OFFLINE)
    trial = client.create_trial(TrialSpec(name="kws", version=1, device_class="sim"))
    time.sleep(0.3)
    assert client.trial(trial.trial_id).state is TrialState.QUEUED
    device.connect()
    assert client.trial(trial.trial_id, wait_s=20).state is TrialState.MEASURED


def test_an_expired_trial_says_why(desk: Scene) -> None:
    desk.push(1)
    client = desk.control.client()
    trial = client.create_trial(
        TrialSpec(name="kws", version=1, device_class="nowhere", expires_s=0.5)
    )
    ended = client.trial(trial.trial_id, wait_s=10)
    assert ended.state is TrialState.EXPIRED
    assert "nowhere" in ended.detail


def test_a_stage_that_misses_its_deadline_goes_back(desk: Scene) -> None:
    device = desk.add("pi-1", Behaviour(hold_at=DeploymentState.PROBING))
    desk.push(1)
    client = desk.control.client()
    began = client.create_rollout(RolloutSpec(name="kws", version=1, gate=Gate(deadline_s=1.0)))
    ended = client.rollout(began.rollout_id, wait_s=20)
    assert ended.state is RolloutState.REFUSED
    assert "not ended within 1 s" in ended.reason
    assert wait_for(lambda: device.desired[-1].models == {})


def test_an_aborted_rollout_gives_back_what_was_not_committed(desk: Scene) -> None:
    device = desk.add("pi-1", Behaviour(hold_at=DeploymentState.PROBING))
    desk.push(1)
    client = desk.control.client()
    began = client.create_rollout(RolloutSpec(name="kws", version=1))
    assert wait_for(lambda: bool(device.desired))
    with pytest.raises(ProtocolError) as caught:
        client.create_rollout(RolloutSpec(name="kws", version=1))
    assert caught.value.code is ErrorCode.PROTOCOL_CONFLICT
    assert client.abort_rollout(began.rollout_id).state is RolloutState.ABORTED
    assert wait_for(lambda: device.desired[-1].models == {})
    assert client.abort_rollout(began.rollout_id).state is RolloutState.ABORTED


def test_a_second_server_on_the_same_folder_is_refused_with_the_pid_of_the_first(
    desk: Scene,
) -> None:
    assert desk.control.process is not None
    refused = cli("serve", "--data", str(desk.control.folder))
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: [config.in_use] ")
    assert str(desk.control.process.pid) in refused.stderr
    assert str(desk.control.folder) in refused.stderr


def test_a_killed_control_plane_leaves_no_broker_behind(tmp_path: Path) -> None:
    control = RunningControlPlane(tmp_path / "data", "auto").start()
    control.kill()
    assert wait_for(lambda: control.children() == [])


def test_the_commands_take_an_artifact_from_push_to_committed(desk: Scene, tmp_path: Path) -> None:
    data = ("--data", str(desk.control.folder))
    credentials = tmp_path / "pi-9.json"
    added = cli("device", "add", "pi-9", "--label", "room=lab", "--out", str(credentials), *data)
    assert added.returncode == 0, added.stderr
    assert credentials.stat().st_mode & 0o777 == 0o600
    desk.add("pi-1")
    signed, payload = make_artifact("kws", 1, PAYLOADS[1])
    write_artifact(tmp_path, signed, payload)
    pushed = cli("artifact", "push", str(tmp_path / "kws.manifest.json"), *data)
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout == f"kws@1 {len(payload)} bytes\n"
    tried = cli("trial", "create", "kws@1", "--class", "sim", "--wait", *data)
    assert tried.returncode == 0, tried.stderr
    rolled = cli("rollout", "create", "kws@1", "--stage", "count=1", "--wait", *data)
    assert rolled.returncode == 0, rolled.stdout + rolled.stderr
    assert "committed" in rolled.stdout
    rollout_id = desk.control.client().rollouts()[0].rollout_id
    for command in (
        ("device", "show", "pi-1"),
        ("artifact", "show", "kws@1"),
        ("rollout", "show", rollout_id),
        ("rollout", "watch", rollout_id),
    ):
        shown = cli(*command, *data)
        assert shown.returncode == 0, shown.stderr
        assert command[-1] in shown.stdout
    for noun in ("device", "artifact", "rollout"):
        for option in ((), ("--json",)):
            assert cli(noun, "list", *option, *data).returncode == 0


def test_a_waited_for_rollout_that_is_refused_exits_with_3(desk: Scene) -> None:
    desk.add("pi-1", Behaviour(refuses={1}))
    desk.push(1)
    data = ("--data", str(desk.control.folder))
    rolled = cli("rollout", "create", "kws@1", "--wait", "--json", *data)
    assert rolled.returncode == 3
    assert '"refused"' in rolled.stdout


def test_a_large_payload_arrives_whole(desk: Scene) -> None:
    device = desk.add("pi-1")
    payload = os.urandom(20 * 1024 * 1024)
    signed, _ = make_artifact("big", 1, payload)
    desk.control.push(signed, payload)
    client = desk.control.client()
    trial = client.create_trial(TrialSpec(name="big", version=1, device_class="sim"))
    assert client.trial(trial.trial_id, wait_s=40).state is TrialState.MEASURED
    digest = hashlib.sha256(payload).hexdigest()
    assert device.payloads[digest] == payload


def test_an_upload_that_is_cut_off_leaves_nothing(desk: Scene) -> None:
    sha256 = hashlib.sha256(PAYLOADS[1]).hexdigest()
    port = int(desk.control.facts.http_url.rsplit(":", 1)[1])
    head = (
        f"PUT /api/v1/payloads/{sha256} HTTP/1.1\r\nHost: x\r\nContent-Length: 150001\r\n"
        f"Authorization: Bearer {desk.control.token}\r\n\r\n"
    )
    folder = desk.control.folder / "payloads"
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(head.encode() + PAYLOADS[1][:70_000])
        assert wait_for(lambda: any(folder.iterdir()))
    assert wait_for(lambda: not any(folder.iterdir()))
    assert desk.control.client().artifacts() == []


def is_acknowledged(device: SimulatedDevice) -> bool:
    return not device.outbox


def is_acked(device: SimulatedDevice, report_id: str, times: int) -> bool:
    return device.acked.count(report_id) == times


def runs(device: SimulatedDevice, manifest: Manifest) -> bool:
    return device.active.get("kws") == manifest.ref()


def count_reports(folder: Path) -> int:
    import sqlite3  # noqa: PLC0415 - looks into the file beside the program

    connection = sqlite3.connect(folder / "trimtab.db")
    try:
        return int(connection.execute("SELECT COUNT(*) FROM reports").fetchone()[0])
    finally:
        connection.close()


def write_artifact(folder: Path, signed: SignedManifest, payload: bytes) -> None:
    (folder / "kws.manifest.json").write_text(signed.model_dump_json())
    (folder / "kws.onnx").write_bytes(payload)


def test_state_survives_a_clean_restart(desk: Scene) -> None:
    device = desk.add("pi-1")
    first = desk.push(1)
    assert desk.roll_out(1) is RolloutState.COMMITTED
    assert desk.control.stop() == 0
    desk.control.start()
    assert wait_for(lambda: len(device.desired) >= 2)
    assert device.desired[-1].sequence == device.desired[0].sequence
    assert device.active["kws"] == first.ref()
    client = desk.control.client()
    assert wait_for(lambda: client.device("pi-1").presence is Presence.ONLINE)
    assert desk.roll_out(1) is RolloutState.COMMITTED  # it runs it already
