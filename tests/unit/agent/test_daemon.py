"""The decision loop, with a recorded link, the rig's simulated parts and time that is told to pass."""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.agent_rig import AgentRig
from support.artifacts import make_artifact
from support.factories import a_birth
from trimtab_agent import systemd
from trimtab_agent.client import Client
from trimtab_agent.config import LocalSettings
from trimtab_agent.daemon import PROGRESS_INTERVAL_S, Daemon, Parts
from trimtab_agent.desires import Desires
from trimtab_agent.events import (
    ChildFinished,
    Connected,
    Disconnected,
    Event,
    HookFinished,
    Received,
    Stop,
)
from trimtab_agent.hook_rules import HookPoint, Verdict
from trimtab_agent.local.api import LocalApi
from trimtab_agent.outbox import RESEND_AFTER_S
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.messages import (
    Ack,
    Ask,
    Birth,
    Desired,
    DesiredModel,
    EventReport,
    Policy,
    Presence,
    Reported,
    Status,
    encode,
    parse_message,
    parse_report,
)
from trimtab_protocol.topics import Leaf, chunk_topic, device_topic

SITE, DEVICE = "lab", "pi-1"
CHUNK = 1024
CONTENT = bytes(i % 251 for i in range(3 * CHUNK + 10))
Script = Iterable["Event | Callable[[], None]"]


class FakeLink:
    """Remembers what was published."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes, bool]] = []
        self.goodbye: tuple[str, bytes] | None = None
        self.is_open = False

    def open(self) -> None:
        self.is_open = True

    def publish(self, topic: str, payload: bytes, *, qos: int, is_retained: bool) -> None:
        assert qos == 1
        self.published.append((topic, payload, is_retained))

    def close(self, goodbye: tuple[str, bytes] | None) -> None:
        self.goodbye = goodbye
        self.is_open = False


class Scripted(queue.SimpleQueue[Event]):
    """Events in the order of a script. A function is done while nothing comes; then: Stop."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[Event | Callable[[], None]] = []

    def get(self, block: bool = True, timeout: float | None = None) -> Event:  # noqa: ARG002 - it never waits
        if not self.script:
            return Stop()
        step = self.script.pop(0)
        if callable(step):
            step()
            raise queue.Empty
        return step


class Device:
    """One agent with everything simulated around its loop."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.rig = AgentRig(folder)
        self.link = FakeLink()
        self.events = Scripted()
        self.connections_remembered = 0
        self.changes = changes
        self.daemon = self.make()

    def make(self) -> Daemon:
        parts: dict[str, Any] = {
            "site": SITE,
            "device": DEVICE,
            "birth": a_birth(),
            "tools": self.rig.tools,
            "journal": self.rig.journal,
            "deployments": self.rig.deployments,
            "trials": self.rig.trials,
            "desires": Desires(self.rig.root / "desired.json", self.rig.tools.disk),
            "link": self.link,
            "events": self.events,
            "first_connect_timeout_s": 60.0,
            "was_ever_connected": False,
            "remember_connected": self.remember_connected,
        }
        return Daemon(Parts(**(parts | self.changes)))

    def make_with_socket(self, socket: Path) -> Daemon:
        """One that applications can reach, by the board that its decisions hold."""
        rig = self.rig
        local = LocalApi(LocalSettings(), socket, rig.board, rig.tools.store, rig.journal)
        self.changes["local"] = local
        return self.make()

    def remember_connected(self) -> None:
        self.connections_remembered += 1

    def run(self, *script: Event | Callable[[], None]) -> None:
        self.events.script = list(script)
        self.daemon.run()

    def sent(self, leaf: Leaf) -> list[bytes]:
        topic = device_topic(SITE, DEVICE, leaf)
        return [payload for name, payload, _ in self.link.published if name == topic]

    def reports(self) -> list[Any]:
        return [parse_report(payload) for payload in self.sent(Leaf.REPORT)]

    def reported(self) -> list[Reported]:
        return [parse_message(Reported, payload) for payload in self.sent(Leaf.REPORTED)]

    def pass_time(self, seconds: float) -> Callable[[], None]:
        return lambda: self.rig.clock.pass_time(seconds)

    def deliver(self) -> list[Event | Callable[[], None]]:
        """Chunks and children's results as events, until nothing is left to do."""

        def turn() -> None:
            delivery, children = self.rig.delivery, self.rig.children
            if delivery.outgoing:
                sha256, index, chunk = delivery.outgoing.popleft()
                topic = chunk_topic(SITE, DEVICE, sha256, index)
                self.events.script.insert(0, Received(topic, chunk))
            elif children.started:
                self.events.script.insert(0, ChildFinished(children.finish()))
            else:
                self.rig.clock.pass_time(1.0)

        return [turn] * 60


def received(leaf: Leaf, payload: bytes, device: str = DEVICE) -> Received:
    return Received(device_topic(SITE, device, leaf), payload)


def a_desire(device: Device, sequence: int = 1, version: int = 1) -> Received:
    signed, payload = make_artifact("digits", version, CONTENT, chunk_bytes=CHUNK)
    device.rig.offer(signed, payload)
    model = DesiredModel(
        deployment_id=f"d{sequence}", signed=signed, policy=Policy(probation_s=5.0)
    )
    return received(Leaf.DESIRED, encode(Desired(sequence=sequence, models={"digits": model})))


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_at_every_connect_it_says_what_it_is_that_it_is_there_and_where_it_stands(
    device: Device,
) -> None:
    device.run(Connected(), device.pass_time(1), Disconnected("gone"), Connected())
    births = [parse_message(Birth, payload) for payload in device.sent(Leaf.BIRTH)]
    assert len(births) == 2
    assert births[0].session_id == a_birth().session_id
    assert births[0].sent_at > 1e9, "the time of sending, not of the start"
    statuses = [parse_message(Status, payload) for payload in device.sent(Leaf.STATUS)]
    assert [row.presence for row in statuses] == [Presence.ONLINE, Presence.ONLINE]
    assert len(device.reported()) >= 2
    assert all(is_retained for _, _, is_retained in device.link.published)


def test_nothing_is_published_before_the_connection_or_after_its_loss(device: Device) -> None:
    device.run(
        device.pass_time(1),
        Connected(),
        Disconnected("gone"),
        device.link.published.clear,
        a_desire(device),
        device.pass_time(1),
    )
    assert device.link.published == []


def test_the_first_connection_is_remembered_once(device: Device) -> None:
    device.run(Connected(), Disconnected("gone"), Connected())
    assert device.connections_remembered == 1


def test_at_the_end_it_says_offline(device: Device) -> None:
    device.run(Connected())
    assert device.link.goodbye is not None
    topic, payload = device.link.goodbye
    assert topic == device_topic(SITE, DEVICE, Leaf.STATUS)
    status = parse_message(Status, payload)
    assert (status.presence, status.session_id) == (Presence.OFFLINE, a_birth().session_id)
    assert not device.link.is_open


def test_a_stop_in_mid_probe_kills_the_child(device: Device) -> None:
    deliver = device.deliver()[0]

    def turn_until_it_probes() -> None:
        if device.rig.children.started:
            device.events.script.clear()
        elif callable(deliver):
            deliver()

    device.run(Connected(), a_desire(device), *[turn_until_it_probes] * 30)
    assert device.rig.state() is DeploymentState.PROBING
    assert device.rig.children.killed_count == 1
    assert device.rig.tools.bench.owner is None


def test_a_desire_is_carried_to_its_commit_and_reported(device: Device) -> None:
    device.run(Connected(), a_desire(device, sequence=7), *device.deliver())
    assert device.rig.state() is DeploymentState.COMMITTED
    newest = device.reported()[-1]
    assert newest.sequence == 7
    assert str(newest.models["digits"].active) == "digits@1"
    assert [row.state.value for row in device.reports()][-1] == "committed"


def test_an_older_desire_and_a_repeat_change_nothing(device: Device) -> None:
    device.run(Connected(), a_desire(device, sequence=7), *device.deliver())
    reports = len(device.rig.reports())
    device.run(Connected(), a_desire(device, sequence=6, version=2), a_desire(device, sequence=7))
    assert len(device.rig.reports()) == reports
    assert device.reported()[-1].sequence == 7


def test_what_was_desired_before_a_restart_is_taken_up_without_the_broker(
    device: Device, tmp_path: Path
) -> None:
    device.run(Connected(), a_desire(device))
    delivery = device.rig.delivery
    again = Device(tmp_path)
    again.rig.delivery.payloads = delivery.payloads
    again.run(*again.deliver())
    assert again.rig.state() is DeploymentState.COMMITTED
    assert again.link.published == []


def test_a_trial_is_answered(device: Device) -> None:
    signed, payload = make_artifact("digits", 1, CONTENT, chunk_bytes=CHUNK)
    device.rig.offer(signed, payload)
    ask = Ask(trial_id="t1", signed=signed, expires_at=device.rig.clock.now() + 600)
    device.run(Connected(), received(Leaf.ASK, encode(ask)), *device.deliver())
    assert {row.trial_id for row in device.reports()} == {"t1"}
    assert device.reports()[0].measurement is not None


def test_an_acknowledged_report_is_not_sent_again_and_another_is(device: Device) -> None:
    device.run(Connected(), a_desire(device), device.pass_time(1))
    first, second = (row.report_id for row in device.reports()[:2])
    device.link.published.clear()
    device.run(
        Connected(),
        device.link.published.clear,
        received(Leaf.ACK, encode(Ack(report_ids=(first,)))),
        device.pass_time(RESEND_AFTER_S + 1),
        device.pass_time(1),
    )
    sent = [row.report_id for row in device.reports()]
    assert first not in sent
    assert second in sent


def test_after_a_reconnect_what_was_not_acknowledged_is_sent_at_once(device: Device) -> None:
    device.run(
        Connected(),
        a_desire(device),
        Disconnected("gone"),
        device.link.published.clear,
        Connected(),
    )
    assert device.reports()[0].report_id == "d1.assigned"


MALFORMED = received(Leaf.DESIRED, b"{")
OTHER_MAJOR = received(Leaf.ASK, b'{"schema_version":"9.0"}')
NO_TOPIC = Received("somebody/elses/topic", b"{}")


def dropped_reports(device: Device) -> list[EventReport]:
    by_id = {row.report_id: row for row in device.reports() if isinstance(row, EventReport)}
    return list(by_id.values())


def test_a_malformed_message_is_dropped_and_reported_once_for_each_kind(device: Device) -> None:
    device.run(
        Connected(), *[MALFORMED] * 5, *[OTHER_MAJOR] * 3, *[NO_TOPIC] * 2, device.pass_time(1)
    )
    assert [(row.event, row.error_code) for row in dropped_reports(device)] == [
        ("message_dropped", ErrorCode.PROTOCOL_MALFORMED),
        ("message_dropped", ErrorCode.PROTOCOL_VERSION),
    ]


def test_once_acknowledged_a_malformed_message_is_not_reported_again(device: Device) -> None:
    device.run(Connected(), MALFORMED, device.pass_time(1))
    (report,) = dropped_reports(device)
    device.link.published.clear()
    ack = received(Leaf.ACK, encode(Ack(report_ids=(report.report_id,))))
    device.run(Connected(), ack, device.link.published.clear, MALFORMED, device.pass_time(1))
    assert dropped_reports(device) == []


def test_after_a_malformed_message_the_next_one_is_heard(device: Device) -> None:
    device.run(Connected(), MALFORMED, a_desire(device), *device.deliver())
    assert device.rig.state() is DeploymentState.COMMITTED


@st.composite
def anything(draw: st.DrawFn) -> Received:
    """Any bytes on any topic, and true messages of which one byte changed."""
    ack = encode(Ack(report_ids=("r1",)))
    manifest, _ = make_artifact("digits", 1, CONTENT, chunk_bytes=CHUNK)
    wanted = DesiredModel(deployment_id="d1", signed=manifest, policy=Policy(probation_s=5.0))
    true = draw(st.sampled_from([ack, encode(Desired(sequence=1, models={"digits": wanted}))]))
    at = draw(st.integers(0, len(true) - 1))
    flipped = true[:at] + bytes([true[at] ^ draw(st.integers(1, 255))]) + true[at + 1 :]
    payload = draw(st.sampled_from([flipped, true[:at], draw(st.binary(max_size=200))]))
    topics = [device_topic(SITE, DEVICE, leaf) for leaf in Leaf]
    topics.append(chunk_topic(SITE, DEVICE, "a" * 64, draw(st.integers(0, 2**31))))
    return Received(draw(st.sampled_from([*topics, draw(st.text(max_size=40))])), payload)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(anything(), min_size=1, max_size=12))
def test_whatever_came_before_the_next_good_message_is_heard(junk: list[Received]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        device = Device(Path(folder))
        device.run(Connected(), *junk, a_desire(device, sequence=1000), *device.deliver())
        assert device.rig.state() is DeploymentState.COMMITTED
        assert str(device.rig.active()) == "digits@1"


def test_a_malformed_message_on_a_full_disk_does_not_end_the_agent(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = device.rig.root / "outbox"
    blocked.write_text("a file where a folder should be")
    device.run(Connected(), MALFORMED, blocked.unlink, a_desire(device), *device.deliver())
    assert device.rig.state() is DeploymentState.COMMITTED


@pytest.mark.parametrize(
    "message",
    [
        received(Leaf.BIRTH, b"{}"),
        received(Leaf.REPORTED, b"{}"),
        received(Leaf.DESIRED, b""),
        Received(chunk_topic(SITE, DEVICE, "a" * 64, 0), b"nobody waits for it"),
    ],
)
def test_what_is_not_for_a_device_to_read_is_passed_over(device: Device, message: Received) -> None:
    device.run(Connected(), message, device.pass_time(1))
    assert device.reports() == []
    assert device.rig.journal.names() == []


def test_a_broker_that_is_never_reached_ends_it_with_what_was_tried(device: Device) -> None:
    with pytest.raises(ConfigError, match=r"within 60 s \(refused: not authorised\)") as caught:
        device.run(Disconnected("refused: not authorised"), device.pass_time(61), lambda: None)
    assert caught.value.code is ErrorCode.TRANSIENT_BROKER
    assert not device.link.is_open


@pytest.mark.parametrize(
    "changes", [{"was_ever_connected": True}, {"first_connect_timeout_s": 0.0}]
)
def test_a_device_that_knows_its_broker_or_may_wait_waits_for_ever(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    device = Device(tmp_path, **changes)
    device.run(device.pass_time(10**6), lambda: None, lambda: None)


def test_one_that_was_connected_once_outlives_any_loss(device: Device) -> None:
    device.run(Connected(), Disconnected("gone"), device.pass_time(10**6), lambda: None)


def test_while_it_fetches_the_progress_is_reported_now_and_then(device: Device) -> None:
    signed, payload = make_artifact("digits", 1, CONTENT * 9, chunk_bytes=CHUNK)
    device.rig.offer(signed, payload)
    model = DesiredModel(deployment_id="d1", signed=signed)
    desired = received(Leaf.DESIRED, encode(Desired(sequence=1, models={"digits": model})))
    device.run(
        Connected(),
        desired,
        device.pass_time(1),
        *device.deliver()[:6],
        device.pass_time(PROGRESS_INTERVAL_S),
        lambda: None,
    )
    progress = [
        row.models["digits"].deployment.fetched_chunks
        for row in device.reported()
        if "digits" in row.models and row.models["digits"].deployment is not None
    ]
    assert progress[-1] > progress[0]
    assert len(progress) < 8, "not for every chunk"


def test_systemd_is_told_when_it_is_ready_and_fed_by_the_loop_itself(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(systemd, "notify", told.append)
    device.run(Connected(), *[device.pass_time(1)] * 3)
    assert told[0] == "READY=1"
    assert told.count("WATCHDOG=1") >= 3
    assert told[-1] == "STOPPING=1"


@pytest.mark.parametrize("where", ["an event", "the work"])
def test_a_loop_that_hangs_starves_the_watchdog_although_applications_are_still_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    device = Device(tmp_path / "state", first_connect_timeout_s=0.0)
    socket = tmp_path / "api.sock"
    device.daemon = device.make_with_socket(socket)
    told: list[str] = []
    is_stuck, may_go_on = threading.Event(), threading.Event()

    def hang() -> None:
        is_stuck.set()
        assert may_go_on.wait(30)
        monkeypatch.setattr(device.rig.deployments, "work", work)

    work = device.rig.deployments.work
    monkeypatch.setattr(systemd, "notify", told.append)
    if where == "the work":
        monkeypatch.setattr(device.rig.deployments, "work", hang)
    steps = [hang] if where == "an event" else []
    script = [*steps, *[device.pass_time(1)] * 5]
    thread = threading.Thread(target=device.run, args=script)
    thread.start()
    try:
        assert is_stuck.wait(30)
        fed = told.count("WATCHDOG=1")
        for _ in range(4):
            device.rig.clock.pass_time(60)
            time.sleep(0.1)
            assert Client(socket).models() == {}
        assert told.count("WATCHDOG=1") == fed
    finally:
        may_go_on.set()
        thread.join(30)
    assert told.count("WATCHDOG=1") >= fed + 3
    assert told[-1] == "STOPPING=1"


def test_applications_are_answered_from_the_start_to_the_end_and_see_every_change(
    tmp_path: Path,
) -> None:
    device = Device(tmp_path / "state")
    socket = tmp_path / "api.sock"
    device.daemon = device.make_with_socket(socket)
    seen: list[int | None] = []

    def look() -> None:
        model = Client(socket).model("digits") if Client(socket).models() else None
        seen.append(model.version if model is not None else None)

    device.run(look, Connected(), a_desire(device), *device.deliver(), look)
    assert seen == [None, 1]
    assert not socket.exists()


def test_a_manifest_that_cannot_be_read_ends_no_agent_and_is_shown_when_it_can(
    tmp_path: Path,
) -> None:
    device = Device(tmp_path / "state")
    device.rig.desire(*make_artifact("digits", 1, CONTENT, chunk_bytes=CHUNK))
    device.rig.settle()
    manifest = device.rig.root / "models" / "digits" / "active" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text("{")

    def refuse(_step: str, _path: Path) -> None:
        raise OSError(30, "Read-only file system")

    device.rig.tools.disk._observe = refuse  # nor can the damaged model be taken away
    socket = tmp_path / "api.sock"
    device.daemon = device.make_with_socket(socket)
    device.rig.board.publish({})
    seen: list[list[str]] = []

    def look() -> None:
        seen.append(list(Client(socket).models()))

    def mend() -> None:
        manifest.write_text(text)

    device.run(look, mend, look)
    assert seen == [[], ["digits"]]


def test_what_a_hook_said_reaches_the_deployment_that_waits_for_it(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.rig.hooks.says = {HookPoint.BEFORE_ACTIVATE: [Verdict.ABORT]}
    device.rig.desire(*make_artifact("digits", 1, CONTENT, chunk_bytes=CHUNK))

    def run_into_the_hook() -> None:
        while not device.rig.hooks.started:
            device.rig.turn()
        device.events.script.insert(0, HookFinished(device.rig.hooks.finish()))

    device.run(run_into_the_hook)
    assert device.rig.error_code() is ErrorCode.REJECTED_HOOK
