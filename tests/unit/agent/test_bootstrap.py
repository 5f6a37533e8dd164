"""The real parts put together, against a stub of a broker."""

from __future__ import annotations

import fcntl
import os
import queue
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.artifacts import TEST_PRIVATE_KEY, make_artifact
from support.mqtt_stub import MqttStub
from trimtab_agent import bootstrap, cli
from trimtab_agent.config import LoadedConfig, load_config
from trimtab_agent.events import Event, HookFinished, Stop
from trimtab_agent.hook_rules import HookCall, HookPoint, Verdict
from trimtab_protocol.api import DeviceCredentials
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.messages import (
    Birth,
    Desired,
    DesiredModel,
    Get,
    Presence,
    Status,
    encode,
    parse_message,
)
from trimtab_protocol.signing import encode_key, public_key_of
from trimtab_protocol.topics import Leaf, device_topic

LARGE = bytes(index % 251 for index in range(600 * 1024))


@pytest.fixture
def stub() -> Iterator[MqttStub]:
    made = MqttStub()
    yield made
    made.close()


def write_config(folder: Path, port: int, extra: str = "") -> Path:
    credentials = DeviceCredentials(
        device="pi-1",
        site="lab",
        mqtt_host="127.0.0.1",
        mqtt_port=port,
        username="pi-1",
        password="p",
    )
    (folder / "credentials.json").write_text(credentials.model_dump_json())
    key = encode_key(public_key_of(TEST_PRIVATE_KEY))
    path = folder / "agent.toml"
    path.write_text(
        f'state_dir = "state"\ncredentials = "credentials.json"\ntrusted_keys = ["{key}"]\n{extra}'
    )
    return path


def topic(leaf: Leaf) -> str:
    return device_topic("lab", "pi-1", leaf)


def sent(stub: MqttStub, leaf: Leaf) -> list[bytes]:
    return [payload for name, payload, _, _ in stub.clients[0].published if name == topic(leaf)]


class Running:
    """The daemon with its real parts in a thread."""

    def __init__(self, loaded: LoadedConfig) -> None:
        loaded.state_dir.mkdir(exist_ok=True)
        self.daemon, self.events = bootstrap.build_daemon(loaded)
        self.thread = threading.Thread(target=self.daemon.run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.events.put(Stop())
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def running(stub: MqttStub, tmp_path: Path) -> Iterator[Running]:
    extra = 'device_class = "test-board"\n[measure]\nthreads = 2\n'
    made = Running(load_config(write_config(tmp_path, stub.port, extra)))
    stub.wait_for("a reported state", lambda: bool(stub.clients and sent(stub, Leaf.REPORTED)))
    yield made
    made.stop()


def test_a_device_introduces_itself_with_what_it_really_is(
    stub: MqttStub, running: Running
) -> None:
    birth = parse_message(Birth, sent(stub, Leaf.BIRTH)[0])
    assert birth.device_class == "test-board"
    assert birth.threads == 2
    assert {row.package for row in birth.runtimes} >= {"onnxruntime", "ai-edge-litert"}
    assert birth.memory_total_bytes is not None
    assert len(birth.fingerprint) == 64


def test_it_reads_what_a_device_may_read_and_nothing_else(stub: MqttStub, running: Running) -> None:
    """[P-1.4]"""
    assert stub.clients[0].subscriptions == [
        (topic(Leaf.DESIRED), 1),
        (topic(Leaf.ASK), 1),
        (topic(Leaf.ACK), 1),
        ("trimtab/v1/lab/d/pi-1/chunk/#", 0),
    ]


def test_its_will_is_offline_in_its_own_session(stub: MqttStub, running: Running) -> None:
    """[P-1.7]"""
    birth = parse_message(Birth, sent(stub, Leaf.BIRTH)[0])
    connect = stub.clients[0].connect
    will = Status(presence=Presence.OFFLINE, boot_id=birth.boot_id, session_id=birth.session_id)
    assert encode(will) in connect


def test_the_end_is_orderly_and_says_offline(stub: MqttStub, running: Running) -> None:
    running.stop()
    stub.wait_for("an orderly end", lambda: stub.clients[0].is_orderly)
    last = parse_message(Status, sent(stub, Leaf.STATUS)[-1])
    assert last.presence is Presence.OFFLINE


@pytest.mark.parametrize("has_folder", [True, False])
def test_the_hooks_of_the_configured_folder_are_run_and_their_end_is_an_event(
    tmp_path: Path, has_folder: bool
) -> None:
    (tmp_path / "hooks").mkdir()
    hook = tmp_path / "hooks" / "before-activate"
    hook.write_text("#!/bin/sh\nexit 21\n")
    hook.chmod(0o755)
    extra = 'hooks_dir = "hooks"\n' if has_folder else ""
    loaded = load_config(write_config(tmp_path, 1, extra))
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    hooks = bootstrap.make_hooks(loaded, events)
    assert hooks.has(HookPoint.BEFORE_ACTIVATE) is has_folder
    if has_folder:
        hooks.start(HookCall(HookPoint.BEFORE_ACTIVATE, "d1", "digits", "digits@1", ""))
        event = events.get(timeout=20)
        assert isinstance(event, HookFinished)
        assert event.result.verdict is Verdict.LATER


def test_it_asks_for_the_chunks_of_a_large_payload_in_requests_of_the_protocol(
    stub: MqttStub, tmp_path: Path
) -> None:
    """[P-6.3]"""
    extra = "[fetch]\nwindow_chunks = 256\nmax_window_chunks = 512\n"
    running = Running(load_config(write_config(tmp_path, stub.port, extra)))
    stub.wait_for("a birth", lambda: bool(stub.clients and sent(stub, Leaf.BIRTH)))
    signed, _ = make_artifact("digits", 1, LARGE, chunk_bytes=1024)
    model = DesiredModel(deployment_id="d1", signed=signed)
    stub.send(topic(Leaf.DESIRED), encode(Desired(sequence=1, models={"digits": model})))
    stub.wait_for("a request", lambda: bool(sent(stub, Leaf.GET)))
    get = parse_message(Get, sent(stub, Leaf.GET)[0])
    running.stop()
    assert get.chunk_bytes == 1024
    assert get.indices == tuple(range(256))


def test_that_it_was_connected_is_remembered_over_a_restart(
    stub: MqttStub, running: Running, tmp_path: Path
) -> None:
    stub.wait_for("the mark", (tmp_path / "state" / "was_connected").exists)


def test_a_state_folder_has_one_owner(tmp_path: Path) -> None:
    first = bootstrap.lock_state_dir(tmp_path / "state")
    assert (tmp_path / "state" / "lock").read_text() == str(os.getpid())
    with pytest.raises(ConfigError, match="another agent is running") as caught:
        bootstrap.lock_state_dir(tmp_path / "state")
    assert caught.value.code is ErrorCode.CONFIG_IN_USE
    os.close(first)
    second = bootstrap.lock_state_dir(tmp_path / "state")
    with pytest.raises(BlockingIOError), (tmp_path / "state" / "lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(second)


def test_a_state_folder_that_cannot_be_made_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    with pytest.raises(ConfigError, match="state_dir"):
        bootstrap.lock_state_dir(tmp_path / "state")


@pytest.mark.parametrize(("configured", "expected"), [(12345, 12345), (0, None)])
def test_a_child_gets_the_memory_that_was_set_or_three_quarters_of_the_machine(
    tmp_path: Path, configured: int, expected: int | None
) -> None:
    loaded = load_config(write_config(tmp_path, 1, f"[measure]\nmax_memory_bytes = {configured}\n"))
    _, identity = bootstrap.read_identity(loaded)
    assert identity.memory_total_bytes is not None
    settings = bootstrap.measure_settings(loaded, identity)
    assert settings.max_memory_bytes == (expected or int(identity.memory_total_bytes * 0.75))
    assert identity.device_class.endswith("-t1"), "derived from the hardware"


@pytest.fixture
def signals() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_the_run_command_ends_in_order_when_it_is_told_to(
    stub: MqttStub, tmp_path: Path, signals: None
) -> None:
    config = write_config(tmp_path, stub.port)

    def stop() -> None:
        stub.wait_for("a birth", lambda: bool(stub.clients and sent(stub, Leaf.BIRTH)))
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    assert cli.main(["run", "--config", str(config)]) == 0
    thread.join(5)
    stub.wait_for("an orderly end", lambda: stub.clients[0].is_orderly)


def test_the_run_command_listens_to_the_meter_and_the_birth_names_it(
    stub: MqttStub, tmp_path: Path, signals: None
) -> None:
    meter = MqttStub()
    extra = f'[meter]\ntopic = "plug"\nbroker = "127.0.0.1:{meter.port}"\n'
    config = write_config(tmp_path, stub.port, extra)
    path = tmp_path / "state/meter.csv"

    def is_subscribed() -> bool:
        return bool(meter.clients and meter.clients[0].subscriptions)

    def stop_after_a_line() -> None:
        try:
            stub.wait_for("a birth", lambda: bool(stub.clients and sent(stub, Leaf.BIRTH)))
            meter.wait_for("a subscription to the meter", is_subscribed)
            meter.send("plug", b"3.5")
            meter.wait_for("a line", lambda: path.stat().st_size > 0)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop_after_a_line, daemon=True)
    thread.start()
    assert cli.main(["run", "--config", str(config)]) == 0
    thread.join(5)
    meter.wait_for("an orderly end", lambda: meter.clients[0].is_orderly)
    meter.close()
    assert parse_message(Birth, sent(stub, Leaf.BIRTH)[0]).sensors == ("external:meter.csv",)
    assert path.read_text().endswith(",3.5\n")


def test_the_run_command_gives_up_on_a_broker_that_was_never_there(
    tmp_path: Path, signals: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        config = write_config(
            tmp_path, closed.getsockname()[1], "[mqtt]\nfirst_connect_timeout_s = 1.0\n"
        )
        assert cli.main(["run", "--config", str(config)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: [transient.broker] the broker was never reached within 1 s")
    assert "no answer from 127.0.0.1" in error
