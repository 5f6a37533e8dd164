"""What every embedded broker must do, asked over real sockets with a real client (paho)."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from trimtab_deploy.broker.acl import CONTROL_PLANE_USER
from trimtab_deploy.broker.amqtt import AmqttBroker
from trimtab_deploy.broker.mosquitto import MosquittoBroker, find_mosquitto
from trimtab_deploy.passwords import make_verifier

SITE = "here"
PASSWORDS = {"alpha": "a-secret", "beta": "b-secret"}
VERIFIERS = {name: make_verifier(text) for name, text in PASSWORDS.items()}
TestBroker = MosquittoBroker | AmqttBroker


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_mosquitto(folder: Path) -> TestBroker:
    return MosquittoBroker(
        program=find_mosquitto() or "mosquitto",
        folder=folder,
        host="127.0.0.1",
        port=free_port(),
        site=SITE,
        verifiers=VERIFIERS,
    )


def make_amqtt(folder: Path) -> TestBroker:
    return AmqttBroker(host="127.0.0.1", port=free_port(), site=SITE, verifiers=VERIFIERS)


needs_mosquitto = [
    pytest.mark.mosquitto,
    pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto on this machine"),
]


@pytest.fixture(
    params=[
        pytest.param(make_mosquitto, id="mosquitto", marks=needs_mosquitto),
        pytest.param(make_amqtt, id="amqtt"),
    ]
)
def make(request: pytest.FixtureRequest) -> Callable[[Path], TestBroker]:
    found: Callable[[Path], TestBroker] = request.param
    return found


@asynccontextmanager
async def running(broker: TestBroker) -> AsyncIterator[TestBroker]:
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


class Client:
    """A paho client (3.1.1, which both brokers speak), driven from a thread of its own."""

    def __init__(
        self, broker: TestBroker, user: str, password: str | None = None, *, clean: bool = True
    ) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.code: int | None = None
        own = broker.address.login
        assert own is not None
        known = {**PASSWORDS, own.username: own.password}
        self.paho = paho.Client(CallbackAPIVersion.VERSION2, client_id=user, clean_session=clean)
        self.paho.username_pw_set(user, known.get(user) if password is None else password)
        self.paho.on_connect = self._on_connect
        self.paho.on_message = lambda _c, _u, m: self.received.append((m.topic, bytes(m.payload)))
        self.paho.on_subscribe = lambda *_: setattr(self, "subscribed", True)
        self.subscribed = False
        self._address = broker.address

    def _on_connect(self, _c: object, _u: object, _f: object, code: object, _p: object) -> None:
        self.code = int(getattr(code, "value", 0))

    def connect(self) -> Client:
        self.paho.connect(self._address.host, self._address.port, keepalive=20)
        self.paho.loop_start()
        assert wait_for(lambda: self.code is not None)
        return self

    def subscribe(self, topic: str, qos: int = 1) -> None:
        self.subscribed = False
        self.paho.subscribe(topic, qos)
        assert wait_for(lambda: self.subscribed)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        self.paho.publish(topic, payload, qos, retain).wait_for_publish(5)

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()

    def give_up(self) -> None:
        self.paho.disconnect()

    def cut(self) -> None:
        """Close the socket without a DISCONNECT, as a power cut does."""
        found = self.paho.socket()
        assert found is not None
        self.paho.loop_stop()
        found.close()


def wait_for(condition: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def topic(device: str, leaf: str) -> str:
    return f"trimtab/v1/{SITE}/d/{device}/{leaf}"


async def at_broker(broker: TestBroker, story: Callable[[TestBroker], None]) -> None:
    """Tell a story from a thread while the broker runs in the loop (amqtt lives in it)."""
    async with running(broker):
        await asyncio.to_thread(story, broker)


def run(make: Callable[[Path], TestBroker], folder: Path, story: Callable[..., None]) -> None:
    asyncio.run(_started(make, folder, story))


async def _started(
    make: Callable[[Path], TestBroker], folder: Path, story: Callable[..., None]
) -> None:
    await at_broker(make(folder), story)


Make = Callable[[Path], TestBroker]


def test_a_device_logs_in_and_a_wrong_password_or_unknown_name_does_not(
    make: Make, tmp_path: Path
) -> None:
    def story(broker: TestBroker) -> None:
        for user, password, accepted in (
            ("alpha", "a-secret", True),
            ("alpha", "wrong", False),
            ("alpha", "", False),
            ("nobody", "a-secret", False),
            (CONTROL_PLANE_USER, "a-secret", False),
        ):
            client = Client(broker, user, password).connect()
            assert (client.code == 0) is accepted, (user, password)
            client.close()

    run(make, tmp_path, story)


def test_a_device_can_neither_write_nor_read_for_another(make: Make, tmp_path: Path) -> None:
    def story(broker: TestBroker) -> None:
        control = Client(broker, CONTROL_PLANE_USER).connect()
        control.subscribe(f"trimtab/v1/{SITE}/d/+/report")
        control.publish(topic("beta", "desired"), b"for beta, retained", retain=True)
        alpha = Client(broker, "alpha").connect()
        alpha.subscribe(topic("beta", "desired"))
        alpha.subscribe("#")
        alpha.publish(topic("beta", "report"), b"forged", qos=0)
        alpha.publish(topic("alpha", "desired"), b"not mine to write", qos=0)
        alpha.publish(topic("alpha", "report"), b"mine", qos=1)
        control.publish(topic("beta", "ask"), b"for beta")
        assert wait_for(lambda: bool(control.received))
        time.sleep(0.3)
        assert control.received == [(topic("alpha", "report"), b"mine")]
        assert alpha.received == []
        alpha.close()
        control.close()

    run(make, tmp_path, story)


def test_a_returning_device_is_not_sent_what_others_have_retained(
    make: Make, tmp_path: Path
) -> None:
    def story(broker: TestBroker) -> None:
        control = Client(broker, CONTROL_PLANE_USER).connect()
        beta = Client(broker, "beta", clean=False).connect()
        beta.subscribe(topic("beta", "desired"))
        control.publish(topic("beta", "desired"), b"for beta", retain=True)
        assert wait_for(lambda: bool(beta.received))
        for _ in range(2):
            alpha = Client(broker, "alpha", clean=False).connect()
            alpha.subscribe(topic("alpha", "desired"))
            time.sleep(0.2)
            assert alpha.received == []
            alpha.close()
        beta.close()
        control.close()

    run(make, tmp_path, story)


def test_a_retained_message_reaches_who_subscribes_later(make: Make, tmp_path: Path) -> None:
    def story(broker: TestBroker) -> None:
        control = Client(broker, CONTROL_PLANE_USER).connect()
        control.publish(topic("alpha", "desired"), b"old", retain=True)
        control.publish(topic("alpha", "desired"), b"new", retain=True)
        alpha = Client(broker, "alpha").connect()
        alpha.subscribe(topic("alpha", "desired"))
        assert wait_for(lambda: bool(alpha.received))
        assert alpha.received == [(topic("alpha", "desired"), b"new")]
        alpha.close()
        control.close()

    run(make, tmp_path, story)


def test_a_last_will_is_sent_when_the_line_is_cut_and_only_on_an_own_topic(
    make: Make, tmp_path: Path
) -> None:
    def story(broker: TestBroker) -> None:
        control = Client(broker, CONTROL_PLANE_USER).connect()
        control.subscribe(f"trimtab/v1/{SITE}/d/+/status")
        for user, target in (("beta", "alpha"), ("alpha", "alpha")):
            client = Client(broker, user)
            client.paho.will_set(topic(target, "status"), user.encode(), qos=1, retain=True)
            client.connect()
            client.cut()
            time.sleep(0.2)
        assert wait_for(lambda: bool(control.received))
        time.sleep(0.2)
        assert control.received == [(topic("alpha", "status"), b"alpha")]
        late = Client(broker, CONTROL_PLANE_USER).connect()
        late.subscribe(topic("alpha", "status"))
        assert wait_for(lambda: bool(late.received))
        late.close()
        control.close()

    run(make, tmp_path, story)


def test_a_persistent_session_gets_what_was_queued_while_it_was_away(
    make: Make, tmp_path: Path
) -> None:
    def story(broker: TestBroker) -> None:
        control = Client(broker, CONTROL_PLANE_USER).connect()
        alpha = Client(broker, "alpha", clean=False).connect()
        alpha.subscribe(topic("alpha", "ack"), qos=1)
        alpha.close()
        time.sleep(0.2)
        for number in range(20):
            control.publish(topic("alpha", "ack"), str(number).encode(), qos=1)
        again = Client(broker, "alpha", clean=False).connect()
        assert wait_for(lambda: len(again.received) == 20)
        assert sorted(int(body) for _, body in again.received) == list(range(20))
        again.close()
        control.close()

    run(make, tmp_path, story)


def test_a_second_connection_of_a_device_takes_over_and_is_served(
    make: Make, tmp_path: Path
) -> None:
    def story(broker: TestBroker) -> None:
        control = Client(broker, CONTROL_PLANE_USER).connect()
        old = Client(broker, "alpha", clean=False).connect()
        old.subscribe(topic("alpha", "ack"))
        old.paho.on_disconnect = lambda *_: old.give_up()
        new = Client(broker, "alpha", clean=False).connect()
        time.sleep(0.3)
        control.publish(topic("alpha", "ack"), b"live", qos=1)
        assert wait_for(lambda: (topic("alpha", "ack"), b"live") in new.received)
        new.close()
        old.paho.loop_stop()
        control.close()

    run(make, tmp_path, story)


def test_nobody_takes_over_a_session_with_a_foreign_client_id(make: Make, tmp_path: Path) -> None:
    def story(broker: TestBroker) -> None:
        control = Client(broker, CONTROL_PLANE_USER).connect()
        alpha = Client(broker, "alpha", clean=False).connect()
        alpha.subscribe(topic("alpha", "ack"))
        for user, password in (("beta", "b-secret"), ("alpha", "wrong")):
            thief = Client(broker, "alpha")
            thief.paho.username_pw_set(user, password)
            thief.connect()
            thief.close()
        control.publish(topic("alpha", "ack"), b"still here", qos=1)
        assert wait_for(lambda: bool(alpha.received))
        alpha.close()
        control.close()

    run(make, tmp_path, story)


def test_a_device_that_is_added_at_run_time_is_accepted_at_once(make: Make, tmp_path: Path) -> None:
    async def story() -> None:
        async with running(make(tmp_path)) as broker:
            before = await asyncio.to_thread(Client(broker, "gamma", "g").connect)
            assert before.code != 0
            await asyncio.to_thread(before.close)
            await broker.admit("gamma", make_verifier("g"))
            after = await asyncio.to_thread(Client(broker, "gamma", "g").connect)
            assert after.code == 0
            await asyncio.to_thread(after.close)

    asyncio.run(story())


def test_after_a_stop_nobody_listens(make: Make, tmp_path: Path) -> None:
    async def story() -> None:
        broker = make(tmp_path)
        async with running(broker):
            pass
        with pytest.raises(OSError, match=r"refused|failed"):
            await asyncio.open_connection(broker.address.host, broker.address.port)

    asyncio.run(story())


@pytest.mark.mosquitto
@pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto on this machine")
def test_a_mosquitto_that_dies_is_started_again_and_still_has_what_was_retained(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with running(make_mosquitto(tmp_path)) as broker:
            assert isinstance(broker, MosquittoBroker)
            control = await asyncio.to_thread(Client(broker, CONTROL_PLANE_USER).connect)
            await asyncio.to_thread(
                control.publish, topic("alpha", "desired"), b"kept", retain=True
            )
            await asyncio.to_thread(control.close)
            first = broker.pid
            assert first is not None
            os.kill(first, signal.SIGTERM)
            for _ in range(500):
                await asyncio.sleep(0.01)
                if broker.pid != first:
                    break
            assert broker.pid != first
            await asyncio.sleep(0.3)
            alpha = await asyncio.to_thread(Client(broker, "alpha").connect)
            await asyncio.to_thread(alpha.subscribe, topic("alpha", "desired"))
            assert await asyncio.to_thread(wait_for, lambda: bool(alpha.received))
            await asyncio.to_thread(alpha.close)

    asyncio.run(story())


@pytest.mark.mosquitto
@pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto on this machine")
def test_what_devices_send_while_the_control_plane_restarts_waits_for_it(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(make_mosquitto(tmp_path)) as broker:
            control = Client(broker, CONTROL_PLANE_USER, clean=False)
            await asyncio.to_thread(control.connect)
            await asyncio.to_thread(control.subscribe, topic("alpha", "report"))
            await asyncio.to_thread(control.close)
        async with running(make_mosquitto(tmp_path)) as broker:
            alpha = await asyncio.to_thread(Client(broker, "alpha").connect)
            await asyncio.to_thread(alpha.publish, topic("alpha", "report"), b"early")
            again = Client(broker, CONTROL_PLANE_USER, clean=False)
            await asyncio.to_thread(again.connect)
            assert await asyncio.to_thread(wait_for, lambda: bool(again.received))
            await asyncio.to_thread(alpha.close)
            await asyncio.to_thread(again.close)

    asyncio.run(story())


def test_the_mosquitto_program_is_found_outside_of_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    expected = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    assert find_mosquitto() == expected
