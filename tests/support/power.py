"""What a power cut does to a disk: what was not synced is torn, and a change of a folder may be gone.

    disk = UnsyncedDisk(root)
    Disk(observe=disk.watch)       it is told every step before it is done
    with disk.seeing_fsync(): ...  and sees every fsync that is really asked for
    disk.lose(...)                 what is left when the power goes

A file system may keep or lose a rename, a new link or a removal until its folder is synced; both
are tried.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

Snapshot = bytes | Path | None
"""Content of a file, target of a link, or nothing there."""

CHANGES = frozenset({"rename", "symlink", "hard_link", "remove"})
"""Steps that change a folder."""


def _snapshot(path: Path) -> Snapshot:
    if path.is_symlink():
        return path.readlink()
    return path.read_bytes() if path.is_file() else None


def _restore(path: Path, was: Snapshot) -> None:
    path.unlink(missing_ok=True)
    if isinstance(was, Path):
        path.symlink_to(was)
    elif was is not None:
        path.write_bytes(was)


@dataclass(frozen=True)
class Change:
    """A change of a folder that is not synced yet."""

    path: Path
    was: Snapshot
    source: Path | None = None


class UnsyncedDisk:
    """Which files and which changes of folders would not outlive a power cut.

    Args:
        root: The agent's folder; what lies there is synced.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._synced = {_mark(path.stat()) for path in self._files()}
        self._changes: list[Change] = []

    def watch(self, step: str, path: Path) -> None:
        """A step is about to be done."""
        is_folder = path.is_dir() and not path.is_symlink()
        if step not in CHANGES or is_folder:
            return  # a folder that comes back is one that nothing points to
        source = self._source(path) if step == "rename" else None
        self._changes.append(Change(path, _snapshot(path), source))

    @contextmanager
    def seeing_fsync(self) -> Iterator[None]:
        """Every `os.fsync` is noted, and none is done."""
        with mock.patch.object(os, "fsync", self._on_fsync):
            yield

    def lose(self, *, are_changes_lost: bool) -> None:
        """The power goes now: half of each file that was not synced is lost.

        Args:
            are_changes_lost: Whether a folder forgets what was changed since it was synced.
        """
        for path in self._files():
            if _mark(path.stat()) not in self._synced:
                content = path.read_bytes()
                path.write_bytes(content[: len(content) // 2])
        for change in reversed(self._changes) if are_changes_lost else ():
            if change.source is not None and change.path.exists():
                change.path.replace(change.source)
            _restore(change.path, change.was)

    def _on_fsync(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self._synced.add(_mark(status))
        if stat.S_ISDIR(status.st_mode):
            self._changes = [
                row for row in self._changes if row.path.parent.stat().st_ino != status.st_ino
            ]

    def _source(self, path: Path) -> Path:
        if path.parent == self._root / "payloads":
            return path.with_name(f"{path.name}.part")
        return path.with_name(f".{path.name}.new")

    def _files(self) -> list[Path]:
        return [path for path in self._root.rglob("*") if path.is_file() and not path.is_symlink()]


def _mark(status: os.stat_result) -> tuple[int, int, int]:
    """A file that is written to after it was synced has another one."""
    return status.st_ino, status.st_mtime_ns, status.st_size
