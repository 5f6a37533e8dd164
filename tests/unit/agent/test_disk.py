"""Durable, atomic changes: in order, and without a foreign exception."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trimtab_agent.disk import Disk
from trimtab_protocol.errors import StorageError


class Steps:
    """What was done, in order; can refuse one kind of step."""

    def __init__(self, refuse: str = "") -> None:
        self.rows: list[tuple[str, str]] = []
        self.refuse = refuse

    def __call__(self, step: str, path: Path) -> None:
        self.rows.append((step, path.name))
        if step == self.refuse:
            raise OSError(28, "No space left on device")


def test_a_file_is_written_synced_renamed_and_its_folder_synced(tmp_path: Path) -> None:
    steps = Steps()
    Disk(steps).write_file(tmp_path / "a", b"new")
    assert steps.rows == [
        ("write", ".a.new"),
        ("fsync", ".a.new"),
        ("rename", "a"),
        ("fsync_folder", tmp_path.name),
    ]
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_a_write_that_fails_leaves_the_old_content(tmp_path: Path, step: str) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(StorageError, match=r"cannot write .*/a: No space left on device"):
        Disk(Steps(step)).write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("step", ["symlink", "rename"])
def test_a_swap_that_fails_leaves_the_link_where_it_pointed(tmp_path: Path, step: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    link = tmp_path / "links" / "active"
    Disk().swap_link(link, tmp_path / "one")
    with pytest.raises(StorageError):
        Disk(Steps(step)).swap_link(link, tmp_path / "two")
    assert link.resolve() == tmp_path / "one"
    Disk().swap_link(link, tmp_path / "two")
    assert link.resolve() == tmp_path / "two"


def test_links_are_relative_so_that_the_folder_can_be_moved(tmp_path: Path) -> None:
    (tmp_path / "old" / "slot").mkdir(parents=True)
    Disk().swap_link(tmp_path / "old" / "models" / "active", tmp_path / "old" / "slot")
    (tmp_path / "old").rename(tmp_path / "new")
    assert (tmp_path / "new" / "models" / "active").resolve() == tmp_path / "new" / "slot"


def test_a_second_name_shares_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    Disk().link_file(tmp_path / "a", tmp_path / "slot" / "b")
    assert (tmp_path / "slot" / "b").stat().st_ino == (tmp_path / "a").stat().st_ino


def test_a_second_name_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").write_bytes(b"older")
    Disk().link_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"older"


def test_where_there_are_no_hard_links_a_synced_copy_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_source: Path, _destination: Path) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_bytes(b"content")
    steps = Steps()
    Disk(steps).link_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"content"
    assert steps.rows.index(("fsync", ".b.new")) < steps.rows.index(("rename", "b"))


def test_removing_takes_a_file_a_link_or_a_whole_folder(tmp_path: Path) -> None:
    disk = Disk()
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    disk.remove(tmp_path / "link")
    assert (tmp_path / "folder" / "deep" / "file").exists()
    disk.remove(tmp_path / "folder" / "deep" / "file")
    disk.remove(tmp_path / "folder")
    disk.remove(tmp_path / "never there")
    assert list(tmp_path.iterdir()) == []


REFUSED: dict[str, Callable[[Path], None]] = {
    "write_file": lambda blocked: Disk().write_file(blocked / "a", b"x"),
    "swap_link": lambda blocked: Disk().swap_link(blocked / "a", blocked / "b"),
    "move": lambda blocked: Disk().move(blocked, blocked / "a"),
    "sync_file": lambda blocked: Disk().sync_file(blocked / "a"),
    "link_file": lambda blocked: Disk().link_file(blocked, blocked / "a"),
    "remove": lambda blocked: Disk().remove(blocked / "a"),
}


@pytest.mark.parametrize("method", REFUSED)
def test_what_the_file_system_refuses_is_a_storage_error_that_names_the_path(
    tmp_path: Path, method: str
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="blocked"):
        REFUSED[method](blocked)
    assert blocked.read_text() == "a file where a folder should be"
