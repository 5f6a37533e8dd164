"""Asking a Pi's firmware: by its mailbox, by `vcgencmd`, or not at all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support import power_layouts as boards
from trimtab_agent.heat import HeatWatch, preflight
from trimtab_agent.pi_firmware import (
    REQUEST,
    TEXT_BYTES,
    ask_firmware,
    encode_request,
    find_mailbox,
    firmware_asker,
    is_mailbox_usable,
)
from trimtab_protocol.errors import StorageError


@pytest.fixture(autouse=True)
def _without_vcgencmd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


def add_vcgencmd(tmp_path: Path, script: str) -> None:
    program = tmp_path / "bin" / "vcgencmd"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_machine_without_mailbox_and_vcgencmd_has_nobody_to_ask(tmp_path: Path) -> None:
    assert firmware_asker(boards.laptop_rapl(tmp_path)) is None
    assert find_mailbox(tmp_path) is None
    assert not is_mailbox_usable(tmp_path)


def test_the_newer_mailbox_is_preferred(tmp_path: Path) -> None:
    boards.pi5(tmp_path)
    assert find_mailbox(tmp_path) == tmp_path / "dev/vcio"
    (tmp_path / "dev/vcio_gencmd").touch()
    assert find_mailbox(tmp_path) == tmp_path / "dev/vcio_gencmd"
    assert is_mailbox_usable(tmp_path)


def test_vcgencmd_alone_is_asked_and_told_the_whole_command(tmp_path: Path) -> None:
    add_vcgencmd(tmp_path, 'echo "$#:$1:$2"')
    ask = firmware_asker(tmp_path)
    assert ask is not None
    assert ask("measure_volts core").strip() == "2:measure_volts:core"


def test_throttle_bits_are_watched_live_through_the_mailbox(tmp_path: Path) -> None:
    ask = firmware_asker(boards.pi5(tmp_path), boards.firmware("throttled=0x50005\n"))
    assert ask is not None
    watch = HeatWatch(tmp_path, (), ask, period_s=0.01)
    watch.start()
    heat = watch.stop()
    assert {event.what for event in heat.throttling} == {
        "under-voltage",
        "throttled by the firmware",
    }
    assert any("under-voltage" in text for text in preflight(tmp_path, (), ask))


def test_a_firmware_that_is_dead_ends_no_run_and_is_named(tmp_path: Path) -> None:
    add_vcgencmd(tmp_path, "echo 'VCHI initialization failed'; exit 255")
    ask = firmware_asker(boards.pi5(tmp_path), boards.firmware("", status=0x8000_0001))
    watch = HeatWatch(tmp_path, (), ask, period_s=0.01)
    watch.start()
    assert any("VCHI initialization failed" in text for text in watch.stop().absent)


@pytest.mark.parametrize("answer", ["", 'error=1 error_msg="Command not registered"'])
def test_an_answer_that_is_none_is_an_error(tmp_path: Path, answer: str) -> None:
    add_vcgencmd(tmp_path, f"echo '{answer}'")
    with pytest.raises(StorageError, match="does not answer"):
        ask_firmware("nonsense", tmp_path)


def test_a_command_that_does_not_fit_is_refused() -> None:
    assert len(encode_request("a" * (TEXT_BYTES - 1))) == 24 + TEXT_BYTES + 4
    with pytest.raises(ValueError, match="does not fit"):
        encode_request("a" * TEXT_BYTES)


def test_the_request_has_the_size_of_a_pointer_in_it() -> None:
    assert (0xC008_6400 if sys.maxsize > 2**32 else 0xC004_6400) == REQUEST
