"""The only way the agent changes what must survive a power cut.

Each change is: write a temporary file, fsync it, rename it into place, fsync the folder. A reader
sees the old content or the new one, never a part. `observe` is called before every primitive step
with its name and path; tests cut the power there.

Sources: rename(2) (atomic replacement), fsync(2) (a folder must be synced for the entry to last).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trimtab_protocol.errors import StorageError

Observer = Callable[[str, Path], None]


def _observe_nothing(_step: str, _path: Path) -> None:
    return


class Disk:
    """Durable, atomic changes to a file system.

    Raises:
        StorageError: From every method, when the file system refuses; what was there stays.
    """

    def __init__(self, observe: Observer = _observe_nothing) -> None:
        self._observe = observe

    def write_file(self, path: Path, content: bytes) -> None:
        """Replace the content of a file."""
        with storage_errors("write", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.new")
            self._observe("write", temporary)
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                self._observe("fsync", temporary)
                os.fsync(stream.fileno())
            self._rename(temporary, path)

    def swap_link(self, link: Path, target: Path) -> None:
        """Point a symbolic link elsewhere; at every instant it points to the one or the other."""
        with storage_errors("link", link):
            link.parent.mkdir(parents=True, exist_ok=True)
            temporary = link.with_name(f".{link.name}.new")
            temporary.unlink(missing_ok=True)
            self._observe("symlink", temporary)
            temporary.symlink_to(os.path.relpath(target, link.parent))
            self._rename(temporary, link)

    def move(self, source: Path, destination: Path) -> None:
        """Give a file its final name; its content is durable already, see `sync_file`."""
        with storage_errors("move", destination):
            destination.parent.mkdir(parents=True, exist_ok=True)
            self._rename(source, destination)

    def sync_file(self, path: Path) -> None:
        """Make what was written into a file durable."""
        with storage_errors("sync", path):
            self._sync(path)

    def link_file(self, source: Path, destination: Path) -> None:
        """Give a file a second name (a hard link; a copy where the file system has none)."""
        with storage_errors("link", destination):
            destination.parent.mkdir(parents=True, exist_ok=True)
            if destination.exists():
                return
            self._observe("hard_link", destination)
            try:
                os.link(source, destination)
            except OSError:
                temporary = destination.with_name(f".{destination.name}.new")
                shutil.copyfile(source, temporary)
                self._sync(temporary)
                self._rename(temporary, destination)
            self._sync_folder(destination.parent)

    def remove(self, path: Path) -> None:
        """Remove a file, a link or a folder; nothing happens if there is none."""
        with storage_errors("remove", path):
            self._observe("remove", path)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def remove_link(self, link: Path) -> None:
        """Remove a link so that it stays away; nothing happens if there is none."""
        self.remove(link)
        with storage_errors("remove", link):
            if link.parent.is_dir():
                self._sync_folder(link.parent)

    def _rename(self, source: Path, destination: Path) -> None:
        self._observe("rename", destination)
        source.replace(destination)
        self._sync_folder(destination.parent)

    def _sync_folder(self, folder: Path) -> None:
        self._observe("fsync_folder", folder)
        _fsync(folder)

    def _sync(self, path: Path) -> None:
        self._observe("fsync", path)
        _fsync(path)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def storage_errors(verb: str, path: Path) -> Iterator[None]:
    """What the file system refuses inside becomes a StorageError that says what was tried."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot {verb} {path}: {error.strerror or error}") from error
