"""Telling systemd how we are, over a real socket."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from trimtab_agent.systemd import notify


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_state_arrives_as_one_datagram(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = str(tmp_path / "notify")
    name = path if kind == "path" else "\0" + path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path if kind == "path" else "@" + path)
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_outside_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")


def test_a_manager_that_went_away_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("WATCHDOG=1")
