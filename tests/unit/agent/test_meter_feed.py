"""What a meter's topic brings into the sensor's file, and what stays outside."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.artifacts import TEST_PRIVATE_KEY
from support.mqtt_stub import MqttStub
from trimtab_agent import bootstrap
from trimtab_agent.config import LoadedConfig, load_config
from trimtab_agent.energy.external import ExternalMeter
from trimtab_agent.energy.table import find_sensor
from trimtab_agent.meter_feed import MAX_FILE_BYTES, MeterFeed, MeterFile, read_watts
from trimtab_protocol.api import DeviceCredentials
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.signing import encode_key, public_key_of

TASMOTA = b'{"Time":"2026-01-02T03:04:05","ENERGY":{"Power":3.25,"Voltage":231}}'


@pytest.fixture
def stub() -> Iterator[MqttStub]:
    made = MqttStub()
    yield made
    made.close()


def load(folder: Path, meter: str, port: int = 1) -> LoadedConfig:
    credentials = DeviceCredentials(
        device="pi-1", site="lab", mqtt_host="127.0.0.1", mqtt_port=port, username="u", password="p"
    )
    (folder / "credentials.json").write_text(credentials.model_dump_json())
    path = folder / "agent.toml"
    path.write_text(
        'state_dir = "state"\ncredentials = "credentials.json"\n'
        f'trusted_keys = ["{encode_key(public_key_of(TEST_PRIVATE_KEY))}"]\n{meter}'
    )
    return load_config(path)


def wait_for_subscriptions(stub: MqttStub, count: int) -> None:
    stub.wait_for(
        f"{count} subscribed clients",
        lambda: sum(bool(client.subscriptions) for client in stub.clients) == count,
    )


@pytest.mark.parametrize(
    ("payload", "field", "watts"),
    [
        (b"3.5", None, 3.5),
        (b" -2 ", None, -2.0),
        (TASMOTA, "ENERGY.Power", 3.25),
        (b'{"apower": 4}', "apower", 4.0),
    ],
)
def test_a_power_is_found_in_a_payload(payload: bytes, field: str | None, watts: float) -> None:
    assert read_watts(payload, field) == watts


@pytest.mark.parametrize(
    ("payload", "field", "word"),
    [
        (b"", None, "neither"),
        (b"3.5 W", None, "neither"),
        (b"\xff\xfe", None, "neither"),
        (b"[" * 4000, None, "neither"),
        (TASMOTA, None, "name its `field`"),
        (TASMOTA, "ENERGY.Watts", "has no ENERGY.Watts"),
        (b"3.5", "ENERGY.Power", "has no"),
        (b'{"apower": true}', "apower", "is no number"),
        (b'{"apower": "4"}', "apower", "is no number"),
        (b"NaN", None, "no power"),
        (b"1e999", None, "no power"),
        (b"-2e6", None, "no power"),
        (b" " * 4097, None, "4097 bytes"),
    ],
)
def test_what_is_no_power_is_refused(payload: bytes, field: str | None, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        read_watts(payload, field)


@given(st.binary(max_size=200), st.none() | st.text(max_size=5))
def test_no_payload_does_more_than_be_refused(payload: bytes, field: str | None) -> None:
    with contextlib.suppress(ValueError):
        assert abs(read_watts(payload, field)) <= 1e6


def test_what_is_written_is_what_the_sensor_reads(tmp_path: Path) -> None:
    times_s = iter([10.0, 11.0, 13.0])
    file = MeterFile(tmp_path / "new" / "meter.csv", lambda: next(times_s))
    sensor = ExternalMeter(tmp_path / "new" / "meter.csv", lambda: 1e9, lambda: 20.0)
    for watts in (2.0, 4.0, 0.123456):
        file.append(watts)
    points = sensor.read_points()
    assert [(point.at_s, point.power_mw) for point in points] == [
        (10, 2000),
        (11, 4000),
        (13, 123.456),
    ]


def test_a_flood_is_thinned_out(tmp_path: Path) -> None:
    times_s = iter([10.0, 10.01, 10.04, 10.06])
    file = MeterFile(tmp_path / "meter.csv", lambda: next(times_s))
    for watts in (1.0, 2.0, 3.0, 4.0):
        file.append(watts)
    assert (tmp_path / "meter.csv").read_text() == "10.000,1\n10.060,4\n"


def test_the_file_stays_small_and_a_reader_misses_nothing(tmp_path: Path) -> None:
    path, now_s = tmp_path / "meter.csv", 0.0
    file = MeterFile(path, lambda: now_s)
    sensor = ExternalMeter(path, lambda: 1e9, lambda: 1e6)
    seen = []
    for number in range(1, 20_001):
        now_s = float(number)
        file.append(2.5)
        if number % 1000 == 0:
            seen += [point.at_s for point in sensor.read_points()]
            sizes = [one.stat().st_size for one in tmp_path.iterdir()]
            assert len(sizes) <= 2
            assert max(sizes) <= MAX_FILE_BYTES + 100
    assert seen == [float(number) for number in range(1, 20_001)]


def test_a_topic_on_the_agent_s_own_broker_reaches_the_sensor(
    stub: MqttStub, tmp_path: Path
) -> None:
    loaded = load(tmp_path, '[meter]\ntopic = "tele/plug"\nfield = "ENERGY.Power"\n', stub.port)
    feed = bootstrap.make_meter_feed(loaded)
    path = tmp_path / "state/meter.csv"
    sensor = find_sensor(tmp_path, meter=path)
    assert isinstance(sensor, ExternalMeter)
    with feed:
        wait_for_subscriptions(stub, 1)
        stub.send("tele/plug", TASMOTA)
        stub.wait_for("a line", lambda: path.stat().st_size > 0)
    (point,) = sensor.read_points()
    assert point.power_mw == 3250
    client = stub.clients[0]
    assert client.subscriptions == [("tele/plug", 0)]
    assert client.is_clean
    assert b"trimtab-meter-pi-1" in client.connect
    assert client.connect.endswith(b"\x00\x01u\x00\x01p")
    stub.wait_for("a goodbye", lambda: client.is_orderly)


def test_the_meter_s_own_broker_is_not_told_the_agent_s_password(
    stub: MqttStub, tmp_path: Path
) -> None:
    broker = f'broker = "127.0.0.1:{stub.port}"\n'
    with bootstrap.make_meter_feed(load(tmp_path, f'[meter]\ntopic = "plug"\n{broker}')):
        wait_for_subscriptions(stub, 1)
    assert stub.clients[0].connect.endswith(b"trimtab-meter-pi-1")
    named = f'[meter]\ntopic = "plug"\nusername = "m"\npassword = "q"\n{broker}'
    with bootstrap.make_meter_feed(load(tmp_path, named)):
        wait_for_subscriptions(stub, 2)
    assert stub.clients[1].connect.endswith(b"\x00\x01m\x00\x01q")


def test_junk_on_the_topic_is_said_once_and_ends_nothing(
    stub: MqttStub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = load(tmp_path, '[meter]\ntopic = "plug"\n', stub.port)
    path = tmp_path / "state/meter.csv"
    with caplog.at_level(logging.WARNING), bootstrap.make_meter_feed(loaded):
        wait_for_subscriptions(stub, 1)
        for payload in (b"off", b"off", b"3"):
            stub.send("plug", payload)
        stub.wait_for("a line", lambda: path.stat().st_size > 0)
    assert caplog.text.count("neither a number nor JSON") == 1


def test_a_broker_that_refuses_the_meter_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stub = MqttStub(reason=5)
    loaded = load(tmp_path, '[meter]\ntopic = "plug"\n', stub.port)
    with caplog.at_level(logging.WARNING), bootstrap.make_meter_feed(loaded):
        stub.wait_for("a refusal", lambda: "refused" in caplog.text)
    stub.close()
    assert f"127.0.0.1:{stub.port} refused" in caplog.text


def test_a_meter_s_broker_that_is_not_there_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stub = MqttStub()
    stub.close()  # nobody listens on its port any more
    broker = f'broker = "127.0.0.1:{stub.port}"\n'
    feed = bootstrap.make_meter_feed(load(tmp_path, f'[meter]\ntopic = "plug"\n{broker}'))
    assert isinstance(feed, MeterFeed)
    tries = threading.Semaphore(0)
    said = feed._client.on_connect_fail
    assert said is not None

    def count(client: Any, userdata: Any) -> None:
        said(client, userdata)
        tries.release()

    feed._client.on_connect_fail = count
    with caplog.at_level(logging.WARNING), feed:
        assert tries.acquire(timeout=20)
        assert tries.acquire(timeout=20)
    assert caplog.text.count(f"no answer from 127.0.0.1:{stub.port}") == 1


def test_a_broker_that_refuses_the_subscription_is_named_with_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stub = MqttStub(may_subscribe=False)
    loaded = load(tmp_path, '[meter]\ntopic = "plug"\n', stub.port)
    with caplog.at_level(logging.WARNING), bootstrap.make_meter_feed(loaded):
        stub.wait_for("a refusal", lambda: "refuses" in caplog.text)
    stub.close()
    assert "refuses the subscription to plug: allow it in the broker's ACL" in caplog.text


def test_without_a_topic_nothing_listens_and_the_file_is_named_to_the_children(
    tmp_path: Path,
) -> None:
    loaded = load(tmp_path, '[meter]\nfile = "power.csv"\n')
    with bootstrap.make_meter_feed(loaded) as feed:
        assert feed is None
    assert not (tmp_path / "power.csv").exists()  # its writer is somebody else
    _, identity = bootstrap.read_identity(loaded)
    assert bootstrap.measure_settings(loaded, identity).meter == str(tmp_path / "power.csv")
    without = bootstrap.measure_settings(load(tmp_path, ""), identity)
    assert without.meter is None


def test_a_file_that_cannot_be_made_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("a file")
    loaded = load(tmp_path, '[meter]\ntopic = "plug"\nfile = "here/meter.csv"\n')
    with pytest.raises(ConfigError, match=r"here/meter\.csv cannot be made"):
        bootstrap.make_meter_feed(loaded)


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ("", "name the meter's file, or its topic"),
        ('topic = "plug/#"', "topic"),
        ('file = "x"\nfield = "y"', "belong to a topic"),
        ('file = "x"\nbroker = "h:1"', "belong to a topic"),
        ('topic = "x"\nbroker = "host"', "broker"),
        ('topic = "x"\nusername = "u"', "belong to a broker"),
        ('topic = "x"\npassword = "p"', "belongs to a username"),
        ('topic = "x"\nbroker = "h:0"', "does not lie in 1 to 65535"),
        ('topic = "x"\nbroker = "h:65536"', "does not lie in 1 to 65535"),
        ('topic = "x"\ntopics = "u"', "topics"),
    ],
)
def test_half_a_meter_is_refused_by_its_name(tmp_path: Path, lines: str, word: str) -> None:
    with pytest.raises(ConfigError, match="meter") as caught:
        load(tmp_path, f"[meter]\n{lines}\n")
    assert word in caught.value.message
