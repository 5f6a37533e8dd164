"""A meter outside, end to end: plug, real broker, the agent's feed, file, sensor, energy."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from support.artifacts import TEST_PRIVATE_KEY
from support.brokers import BrokerProcess, find_mosquitto
from trimtab_agent import bootstrap
from trimtab_agent.config import LoadedConfig, load_config
from trimtab_agent.energy.base import NoSensor
from trimtab_agent.energy.measure import LoadRun, measure_energy
from trimtab_agent.energy.table import find_sensor
from trimtab_protocol.api import DeviceCredentials
from trimtab_protocol.measurement import SensorKind
from trimtab_protocol.signing import encode_key, public_key_of

pytestmark = [
    pytest.mark.mosquitto,
    pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto on this machine"),
]


class Plug:
    """A smart plug in the supply of a device that takes 1 W, and 3 W while it infers."""

    def __init__(self, port: int) -> None:
        self.watts = 1.0
        self.is_silent = False
        self._stopped = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._thread = threading.Thread(target=self._speak)
        self._thread.start()

    def run_for(self, seconds: float) -> LoadRun:
        started_s, self.watts = time.monotonic(), 3.0
        time.sleep(seconds)
        ended_s, self.watts = time.monotonic(), 1.0
        return LoadRun(started_s, ended_s, round((ended_s - started_s) * 100))

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()

    def _speak(self) -> None:
        while not self._stopped.wait(0.1):
            if not self.is_silent:
                self._client.publish("tele/plug", json.dumps({"ENERGY": {"Power": self.watts}}))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    made = BrokerProcess("mosquitto", tmp_path / "broker")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def loaded(tmp_path: Path, broker: BrokerProcess) -> LoadedConfig:
    credentials = DeviceCredentials(
        device="pi-1",
        site="lab",
        mqtt_host="127.0.0.1",
        mqtt_port=broker.port,
        username="pi-1",
        password="p",
    )
    (tmp_path / "credentials.json").write_text(credentials.model_dump_json())
    (tmp_path / "agent.toml").write_text(
        'state_dir = "state"\ncredentials = "credentials.json"\n'
        f'trusted_keys = ["{encode_key(public_key_of(TEST_PRIVATE_KEY))}"]\n'
        '[meter]\ntopic = "tele/plug"\nfield = "ENERGY.Power"\n'
    )
    return load_config(tmp_path / "agent.toml")


@contextmanager
def plugged_in(broker: BrokerProcess, loaded: LoadedConfig) -> Iterator[tuple[Plug, Path]]:
    """Until the file has enough lines to tell the plug's interval."""
    _, identity = bootstrap.read_identity(loaded)
    path = Path(bootstrap.measure_settings(loaded, identity).meter or "")
    with bootstrap.make_meter_feed(loaded):
        plug = Plug(broker.port)
        try:
            wait_for_lines(path, 10)
            yield plug, path
        finally:
            plug.close()


def wait_for_lines(path: Path, count: int) -> None:
    until_s = time.monotonic() + 20
    while len(path.read_text().splitlines()) < count:
        assert time.monotonic() < until_s, "the plug was not heard"
        time.sleep(0.05)


def test_a_plug_that_speaks_mqtt_gives_the_energy_of_an_inference(
    broker: BrokerProcess, loaded: LoadedConfig
) -> None:
    with plugged_in(broker, loaded) as (plug, path):
        sensor = find_sensor(meter=path)
        assert not isinstance(sensor, NoSensor)
        energy = measure_energy(sensor, plug, 1, 2.0)
    assert energy.max_gap_s is not None
    assert energy.window_s is not None
    allowed = 0.02 + 3 * energy.max_gap_s / energy.window_s
    assert energy.per_inference_mj.value == pytest.approx(20.0, rel=allowed)
    assert (energy.kind, energy.scope) == (SensorKind.EXTERNAL, "board")
    assert energy.source == "external:meter.csv"


def test_a_plug_that_falls_silent_is_a_reason_and_no_number(
    broker: BrokerProcess, loaded: LoadedConfig
) -> None:
    with plugged_in(broker, loaded) as (plug, path):
        sensor = find_sensor(meter=path)
        assert not isinstance(sensor, NoSensor)
        plug.is_silent = True
        energy = measure_energy(sensor, plug, 1, 1.0)
    assert "do not cover" in str(energy.per_inference_mj.absent)


def test_after_the_broker_was_away_the_plug_is_heard_again(
    broker: BrokerProcess, loaded: LoadedConfig
) -> None:
    with plugged_in(broker, loaded) as (_, path):
        broker.restart()
        wait_for_lines(path, len(path.read_text().splitlines()) + 10)
