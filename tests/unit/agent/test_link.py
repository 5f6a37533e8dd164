"""The connection to the broker, against a stub that shows what was said on the wire."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.mqtt_stub import MqttStub
from trimtab_agent.config import MqttSettings
from trimtab_agent.events import Connected, Disconnected, Event, Received
from trimtab_agent.link import PahoLink, Subscription, Will
from trimtab_protocol.api import DeviceCredentials
from trimtab_protocol.errors import ConfigError

WILL = Will("trimtab/v1/lab/d/pi-1/status", b"offline")
SUBSCRIPTIONS = (Subscription("a/desired", 1), Subscription("a/chunk/#", 0))
QUICK = MqttSettings(reconnect_min_s=0.1, reconnect_max_s=0.1)


class Rig:
    """One link and its events."""

    def __init__(self, port: int, settings: MqttSettings = QUICK) -> None:
        credentials = DeviceCredentials(
            device="pi-1",
            site="lab",
            mqtt_host="127.0.0.1",
            mqtt_port=port,
            username="pi-1",
            password="secret",
        )
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.link = PahoLink(credentials, settings, SUBSCRIPTIONS, WILL, self.events.put)

    def next(self, kind: type[Any]) -> Any:
        event = self.events.get(timeout=10)
        assert isinstance(event, kind), event
        return event


@pytest.fixture
def stub() -> Iterator[MqttStub]:
    made = MqttStub()
    yield made
    made.close()


@pytest.fixture
def rig(stub: MqttStub) -> Iterator[Rig]:
    made = Rig(stub.port)
    made.link.open()
    made.next(Connected)
    stub.wait_for("subscriptions", lambda: len(stub.clients[0].subscriptions) == 2)
    yield made
    made.link.close(None)


def test_it_subscribes_to_what_it_was_given_at_the_quality_wanted(stub: MqttStub, rig: Rig) -> None:
    assert stub.clients[0].subscriptions == [("a/desired", 1), ("a/chunk/#", 0)]


def test_the_session_is_kept_and_the_will_is_left_with_the_broker(stub: MqttStub, rig: Rig) -> None:
    client = stub.clients[0]
    assert client.level == 4
    assert not client.is_clean
    assert client.keepalive_s == 30
    assert client.connect[7] & 0b0010_1100 == 0b0010_1100, "a will, QoS 1, retained"
    for part in (b"trimtab-pi-1", WILL.topic.encode(), WILL.payload, b"secret"):
        assert part in client.connect


def test_with_mqtt_5_the_session_outlives_the_connection_too(stub: MqttStub) -> None:
    rig = Rig(stub.port, QUICK.model_copy(update={"protocol": "5"}))
    rig.link.open()
    rig.next(Connected)
    client = stub.clients[0]
    assert client.level == 5
    assert not client.is_clean
    assert b"\x11" + (7 * 86400).to_bytes(4, "big") in client.connect, "session expiry interval"
    rig.link.close((WILL.topic, b"bye"))
    stub.wait_for("an orderly end", lambda: client.is_orderly)
    assert client.published == [(WILL.topic, b"bye", 1, True)]


def test_what_comes_in_becomes_an_event_with_its_bytes(stub: MqttStub, rig: Rig) -> None:
    stub.send("a/chunk/1", bytes(range(256)))
    assert rig.next(Received) == Received("a/chunk/1", bytes(range(256)))


def test_what_is_published_arrives_with_its_quality_and_flag(stub: MqttStub, rig: Rig) -> None:
    rig.link.publish("a/report", b"one", qos=1, is_retained=False)
    rig.link.publish("a/reported", b"two", qos=1, is_retained=True)
    client = stub.clients[0]
    stub.wait_for("two messages", lambda: len(client.published) == 2)
    assert client.published == [("a/report", b"one", 1, False), ("a/reported", b"two", 1, True)]


def test_an_orderly_end_says_goodbye_so_that_the_will_is_not_sent(stub: MqttStub, rig: Rig) -> None:
    rig.link.close((WILL.topic, b"goodbye"))
    stub.wait_for("an orderly end", lambda: stub.clients[0].is_orderly)
    assert stub.clients[0].published == [(WILL.topic, b"goodbye", 1, True)]


def test_a_lost_connection_is_said_and_made_again_with_its_subscriptions(
    stub: MqttStub, rig: Rig
) -> None:
    stub.drop()
    rig.next(Disconnected)
    rig.next(Connected)
    stub.wait_for("subscriptions", lambda: len(stub.clients[1].subscriptions) == 2)


def test_what_is_published_while_disconnected_is_dropped_and_not_sent_later(
    stub: MqttStub,
) -> None:
    rig = Rig(stub.port)
    rig.link.publish("a/get", b"stale", qos=1, is_retained=False)
    rig.link.open()
    rig.next(Connected)
    rig.link.publish("a/get", b"fresh", qos=1, is_retained=False)
    stub.wait_for("a message", lambda: bool(stub.clients[0].published))
    rig.link.close(None)
    assert [payload for _, payload, _, _ in stub.clients[0].published] == [b"fresh"]


def test_a_broker_that_says_no_is_told_apart_from_one_that_is_not_there() -> None:
    stub = MqttStub(reason=5)
    rig = Rig(stub.port)
    rig.link.open()
    event = rig.next(Disconnected)
    rig.link.close(None)
    stub.close()
    assert event.is_refused
    assert "uthor" in event.reason
    assert stub.clients[0].subscriptions == []


def test_a_broker_that_is_not_there_is_named_with_its_port() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        rig = Rig(port)
        rig.link.open()
        event = rig.next(Disconnected)
        rig.link.close(("a", b"nobody hears it"))
    assert event == Disconnected(f"no answer from 127.0.0.1:{port}")


@pytest.mark.parametrize("is_nodelay", [True, False])
def test_small_packets_are_not_held_back_unless_the_settings_say_so(
    stub: MqttStub, monkeypatch: pytest.MonkeyPatch, is_nodelay: bool
) -> None:
    opened: list[socket.socket] = []
    original = PahoLink._on_socket_open

    def watch(self: PahoLink, client: object, userdata: object, sock: socket.socket) -> None:
        original(self, client, userdata, sock)
        opened.append(sock)

    monkeypatch.setattr(PahoLink, "_on_socket_open", watch)
    rig = Rig(stub.port, QUICK.model_copy(update={"is_nodelay": is_nodelay}))
    rig.link.open()
    rig.next(Connected)
    option = opened[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    rig.link.close(None)
    assert bool(option) is is_nodelay


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_cannot_be_used_is_a_config_error(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"mqtt\.tls_ca .*ca\.pem"):
        Rig(1, QUICK.model_copy(update={"tls_ca": str(path)}))
