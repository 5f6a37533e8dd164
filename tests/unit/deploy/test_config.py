from __future__ import annotations

import os
from pathlib import Path

import pytest

from trimtab_deploy.broker.choose import BrokerChoice, build_broker
from trimtab_deploy.config import load_settings
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.signing import encode_key, key_id_of, public_key_of

KEY = public_key_of(bytes(32))


def write(folder: Path, text: str) -> Path:
    path = folder / "deploy.toml"
    path.write_text(text)
    return path


def test_defaults_need_no_file() -> None:
    settings = load_settings(None, {})
    assert (settings.site, settings.broker, settings.http_port) == ("default", "auto", 8080)


def test_the_command_line_wins_over_the_file_and_none_does_not(tmp_path: Path) -> None:
    path = write(tmp_path, 'site = "lab"\nhttp_port = 9000\n')
    settings = load_settings(path, {"site": "desk", "http_port": None})
    assert (settings.site, settings.http_port) == ("desk", 9000)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("htp_port = 1", "htp_port"),
        ('http_port = "8080"', "http_port"),
        ("http_port = 70000", "http_port"),
        ('broker = "rabbit"', "broker"),
        ('site = "Not A Name"', "site"),
        ("trusted_keys = [1]", "trusted_keys"),
        ("[external]\nport = 1", "external.host"),
        ('[external]\nhost = "h"\nuser = "u"', "external.user"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(tmp_path: Path, text: str, key: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    assert str(path) in caught.value.message
    assert key in caught.value.message


def test_a_file_that_is_not_there_or_not_toml_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "none.toml", {})
    assert caught.value.code is ErrorCode.CONFIG_MISSING
    with pytest.raises(ConfigError, match="is not TOML"):
        load_settings(write(tmp_path, "= ="), {})


def test_a_wrong_value_on_the_command_line_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="command line: http_port"):
        load_settings(write(tmp_path, ""), {"http_port": -1})


def test_trusted_keys_are_known_by_their_id(tmp_path: Path) -> None:
    path = write(tmp_path, f'trusted_keys = ["{encode_key(KEY)}"]')
    assert load_settings(path, {}).keys() == {key_id_of(KEY): KEY}
    with pytest.raises(ConfigError):
        load_settings(write(tmp_path, 'trusted_keys = ["nonsense"]'), {})


def test_devices_are_told_a_host_that_they_can_use(tmp_path: Path) -> None:
    assert load_settings(None, {"mqtt_host": "10.0.0.5"}).device_mqtt_host() == "10.0.0.5"
    assert load_settings(None, {"mqtt_host": "0.0.0.0"}).device_mqtt_host() != "0.0.0.0"
    path = write(tmp_path, 'advertised_mqtt_host = "broker.lan"')
    assert load_settings(path, {}).device_mqtt_host() == "broker.lan"
    path = write(tmp_path, 'broker = "external"\n[external]\nhost = "mq.lan"')
    assert load_settings(path, {}).device_mqtt_host() == "mq.lan"


def test_an_external_broker_is_used_as_configured(tmp_path: Path) -> None:
    text = '[external]\nhost = "h"\nport = 8883\nusername = "u"\npassword = "p"\nmqtt5 = false'
    external = load_settings(write(tmp_path, text), {}).external
    assert external is not None
    address = external.address()
    assert (address.host, address.port, address.speaks_mqtt5) == ("h", 8883, False)
    assert address.login is not None
    assert address.login.username == "u"
    choice = BrokerChoice(tmp_path, "127.0.0.1", 0, "s", address)
    assert build_broker("external", choice, {}).product == "external"


def test_external_without_an_address_and_unknown_kinds_are_refused(tmp_path: Path) -> None:
    choice = BrokerChoice(tmp_path, "127.0.0.1", 0, "s")
    with pytest.raises(ConfigError, match=r"\[external\]"):
        build_broker("external", choice, {})
    with pytest.raises(ConfigError, match="expected one of"):
        build_broker("rabbit", choice, {})


def test_auto_falls_back_to_amqtt_and_mosquitto_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab_deploy.broker.choose.find_mosquitto", lambda: None)
    choice = BrokerChoice(tmp_path, "127.0.0.1", 1, "s")
    assert build_broker("auto", choice, {}).product == "amqtt"
    with pytest.raises(ConfigError, match="no mosquitto on PATH"):
        build_broker("mosquitto", choice, {})
    monkeypatch.setattr(
        "trimtab_deploy.broker.choose.find_mosquitto", lambda: os.fspath(tmp_path / "m")
    )
    assert build_broker("auto", choice, {}).product == "mosquitto"
