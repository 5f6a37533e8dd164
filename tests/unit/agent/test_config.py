"""The agent's settings: right, or one sentence that says what is wrong where."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.factories import OWNER_KEY, STRANGER_KEY
from trimtab_agent import cli
from trimtab_agent.config import load_config
from trimtab_protocol.api import DeviceCredentials
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.signing import encode_key, key_id_of, public_key_of

KEY = encode_key(public_key_of(OWNER_KEY))
REQUIRED = f'state_dir = "state"\ncredentials = "credentials.json"\ntrusted_keys = ["{KEY}"]\n'
CREDENTIALS = DeviceCredentials(
    device="pi-1", site="lab", mqtt_host="broker", mqtt_port=1883, username="pi-1", password="p"
)


def write_config(folder: Path, text: str, credentials: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "agent.toml"
    path.write_text(text)
    (folder / "credentials.json").write_text(credentials or CREDENTIALS.model_dump_json())
    return path


def test_the_shortest_configuration_works(tmp_path: Path) -> None:
    loaded = load_config(write_config(tmp_path, REQUIRED))
    assert loaded.credentials == CREDENTIALS
    assert loaded.trusted_keys == {key_id_of(public_key_of(OWNER_KEY)): public_key_of(OWNER_KEY)}
    assert loaded.config.measure.threads == 1


def test_relative_paths_are_relative_to_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = REQUIRED + '[mqtt]\ntls_ca = "ca.pem"\n[measure]\nlock = "measure.lock"\n'
    write_config(tmp_path / "etc", text)
    monkeypatch.chdir(tmp_path)
    loaded = load_config(Path("etc/agent.toml"))
    folder = tmp_path / "etc"
    assert loaded.state_dir == folder / "state"
    assert loaded.config.mqtt.tls_ca == str(folder / "ca.pem")
    assert loaded.config.measure.lock == str(folder / "measure.lock")


def test_absolute_paths_stay_as_they_are(tmp_path: Path) -> None:
    text = REQUIRED.replace('"state"', f'"{tmp_path / "elsewhere"}"')
    loaded = load_config(write_config(tmp_path / "etc", text))
    assert loaded.state_dir == tmp_path / "elsewhere"


def test_keys_may_be_files_beside_the_configuration_or_the_keys_themselves(tmp_path: Path) -> None:
    other = public_key_of(STRANGER_KEY)
    text = REQUIRED.replace(f'["{KEY}"]', f'["{KEY}", "second.pub", "./keys/third"]')
    path = write_config(tmp_path, text)
    (tmp_path / "second.pub").write_text(encode_key(other) + "\n")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "third").write_text(encode_key(bytes(32)))
    assert set(load_config(path).trusted_keys) == {
        key_id_of(key) for key in (public_key_of(OWNER_KEY), other, bytes(32))
    }


BAD: list[tuple[str, str, str | None, tuple[str, ...]]] = [
    ("not TOML", "state_dir = ", None, ("agent.toml", "not TOML")),
    ("an unknown key", REQUIRED + 'colour = "red"\n', None, ("agent.toml", "colour")),
    (
        "an unknown key of a section",
        REQUIRED + "[measure]\nthread = 2\n",
        None,
        ("agent.toml", "measure.thread"),
    ),
    (
        "a wrong type",
        REQUIRED + '[measure]\nthreads = "two"\n',
        None,
        ("agent.toml", "measure.threads"),
    ),
    (
        "out of range",
        REQUIRED + "[mqtt]\nkeepalive_s = 1\n",
        None,
        ("agent.toml", "mqtt.keepalive_s", "2"),
    ),
    (
        "another protocol",
        REQUIRED + '[mqtt]\nprotocol = "4"\n',
        None,
        ("agent.toml", "mqtt.protocol"),
    ),
    (
        "a class that is no name",
        REQUIRED + 'device_class = "Pi 4"\n',
        None,
        ("agent.toml", "device_class"),
    ),
    ("a required key is missing", 'state_dir = "s"\n', None, ("credentials", "trusted_keys")),
    (
        "no key at all",
        REQUIRED.replace(f'["{KEY}"]', "[]"),
        None,
        ("agent.toml", "trusted_keys"),
    ),
    (
        "a key that is not base64",
        REQUIRED.replace(KEY, "no key!"),
        None,
        ("trusted_keys", "no key!", "base64"),
    ),
    ("a key that is too short", REQUIRED.replace(KEY, "AAAA"), None, ("trusted_keys", "3 bytes")),
    (
        "a key file that is missing",
        REQUIRED.replace(KEY, "release.pub"),
        None,
        ("trusted key", "release.pub", "does not exist"),
    ),
    (
        "credentials that are missing",
        REQUIRED.replace("credentials.json", "none.json"),
        None,
        ("credentials", "none.json", "trimtab-deploy device add"),
    ),
    (
        "credentials that are a folder",
        REQUIRED.replace("credentials.json", "."),
        None,
        ("credentials", "cannot be read"),
    ),
    ("credentials that are not JSON", REQUIRED, "{", ("credentials.json", "JSON")),
    ("credentials without a site", REQUIRED, '{"device": "a"}', ("credentials.json", "site")),
]


@pytest.mark.parametrize(
    ("text", "credentials", "says"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_bad_settings_are_one_sentence_that_names_file_and_key_and_exit_with_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    credentials: str | None,
    says: tuple[str, ...],
) -> None:
    path = write_config(tmp_path, text, credentials)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for word in says:
        assert word in caught.value.message
    assert cli.main(["run", "--config", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: [config.")
    assert not (tmp_path / "state").exists()


def test_a_missing_configuration_says_where_it_was_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match=r"none\.toml does not exist") as caught:
        load_config(path)
    assert caught.value.code is ErrorCode.CONFIG_MISSING
    assert cli.main(["status", "--config", str(path)]) == 2
    assert "config.missing" in capsys.readouterr().err


def test_a_configuration_that_is_not_text_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "agent.toml")


def test_a_folder_of_hooks_is_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "hooks").mkdir()
    loaded = load_config(write_config(tmp_path, REQUIRED + 'hooks_dir = "hooks"\n'))
    assert loaded.config.hooks_dir == str(tmp_path / "hooks")


def test_a_misspelt_folder_of_hooks_does_not_mean_that_nobody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hoks is no folder") as caught:
        load_config(write_config(tmp_path, REQUIRED + 'hooks_dir = "hoks"\n'))
    assert caught.value.code is ErrorCode.CONFIG_MISSING
