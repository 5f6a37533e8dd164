from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from trimtab_deploy.files import write_atomically
from trimtab_deploy.folder import (
    ServerFile,
    admin_token,
    await_server_file,
    choose_port,
    listen,
    locked_folder,
    read_server_file,
    remember_ports,
)
from trimtab_deploy.systemd_notify import notify
from trimtab_protocol.errors import ConfigError, ErrorCode, StorageError


def test_one_owner_at_a_time_and_the_next_one_after_it(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    with locked_folder(folder):
        with pytest.raises(ConfigError) as caught, locked_folder(folder):
            pass
        assert caught.value.code is ErrorCode.CONFIG_IN_USE
        assert str(os.getpid()) in caught.value.message
        assert str(folder) in caught.value.message
    with locked_folder(folder):
        pass


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError), locked_folder(tmp_path / "file" / "below"):
        pass


def test_the_token_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    token = admin_token(tmp_path)
    assert len(token) >= 43
    assert admin_token(tmp_path) == token
    assert (tmp_path / "admin.token").stat().st_mode & 0o777 == 0o600


def test_a_token_that_cannot_be_read_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "admin.token").mkdir()
    with pytest.raises(StorageError):
        admin_token(tmp_path)


@pytest.mark.parametrize("content", [None, "", "{}", '{"http_url": 1}'])
def test_without_a_server_it_says_how_to_start_one(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "server.json").write_text(content)
    with pytest.raises(ConfigError, match="trimtab-deploy serve --data"):
        read_server_file(tmp_path)


def test_a_free_port_is_chosen_again_and_another_one_when_it_is_taken(tmp_path: Path) -> None:
    first = choose_port(tmp_path, "mqtt", "127.0.0.1", 0)
    remember_ports(tmp_path, {"mqtt": first})
    assert choose_port(tmp_path, "mqtt", "127.0.0.1", 0) == first
    with listen("127.0.0.1", first):
        assert choose_port(tmp_path, "mqtt", "127.0.0.1", 0) != first
    assert choose_port(tmp_path, "mqtt", "127.0.0.1", 4711) == 4711


def test_a_damaged_memory_of_ports_is_passed_over(tmp_path: Path) -> None:
    for content in ("not json", "[]"):
        (tmp_path / "ports.json").write_text(content)
        assert choose_port(tmp_path, "mqtt", "127.0.0.1", 0) > 0


def test_a_taken_port_is_a_config_error() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="cannot listen"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    write_atomically(path, b"new", mode=0o600)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(StorageError):
        write_atomically(tmp_path / "none" / "file", "x")


def test_systemd_is_told_when_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(address))
        monkeypatch.setenv("NOTIFY_SOCKET", str(address))
        notify("READY=1")
        assert channel.recv(100) == b"READY=1"
    monkeypatch.setenv("NOTIFY_SOCKET", "@trimtab-nobody-listens")
    notify("READY=1")


def test_a_control_plane_that_is_just_starting_is_waited_for(tmp_path: Path) -> None:
    said: list[str] = []
    server = ServerFile(http_url="http://x", mqtt_host="h", mqtt_port=1, broker="amqtt", pid=1)

    def start() -> None:
        (tmp_path / "new").mkdir()
        (tmp_path / "draft").write_text(server.model_dump_json())
        (tmp_path / "draft").rename(tmp_path / "new" / "server.json")

    timer = threading.Timer(0.3, start)
    timer.start()
    assert await_server_file(tmp_path / "new", said.append) == server
    timer.join()
    assert len(said) == 1


def test_none_that_begins_to_serve_in_time_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no control plane serves"):
        await_server_file(tmp_path, lambda _text: None, patience_s=0.2)
