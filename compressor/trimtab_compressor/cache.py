"""A folder of results known by what they were made from.

Rules: a key is a digest of everything that a result depends on, so nothing is ever invalidated; a
result appears under its key whole or not at all (written beside it, then renamed); of several
processes that want the same result one makes it.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trimtab_protocol.errors import ConfigError


def default_cache_folder() -> Path:
    """TRIMTAB_CACHE, else `~/.cache/trimtab`."""
    chosen = os.environ.get("TRIMTAB_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "trimtab"


class Cache:
    """Files by kind and key below one folder.

    Args:
        root: Created if it is missing.

    Raises:
        ConfigError: The folder cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cache folder {root} cannot be made ({error.strerror}); give another with --cache "
                "or TRIMTAB_CACHE"
            ) from error

    def path(self, key: str, suffix: str) -> Path:
        """Where the file of a key is or would be."""
        return self.root / key[:2] / f"{key}{suffix}"

    def get_or_make(self, key: str, suffix: str, make: Callable[[Path], None]) -> Path:
        """Give the file of a key, made now if it is not there.

        Args:
            key: Digest of all inputs.
            suffix: Of the file name, with its dot.
            make: Writes the file at the path that it is given; what it raises passes through and
                leaves nothing behind.
        """
        target = self.path(key, suffix)
        if target.is_file():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._lock(f"{key}{suffix}"):
            if not target.is_file():
                with tempfile.TemporaryDirectory(dir=self.root, prefix=".making-") as folder:
                    draft = Path(folder) / f"draft{suffix}"
                    make(draft)
                    draft.replace(target)
        return target

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Let one process make a result while others wait for it.

        The lock is on a folder and ends with its process, however that ends. Whoever waits for a
        folder that is removed meanwhile finds the result, or makes it again, which does no harm.
        """
        folder = self.root / f".lock-{name}"
        descriptor = _open_folder(folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            with suppress(OSError):
                folder.rmdir()
            os.close(descriptor)


def _open_folder(folder: Path) -> int:
    """A descriptor of a folder, which another process may be removing."""
    while True:
        folder.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            return os.open(folder, os.O_RDONLY)
