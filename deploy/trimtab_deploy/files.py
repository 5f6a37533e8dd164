"""Files that are whole or not there: write, fsync, rename, fsync the folder."""

from __future__ import annotations

import os
from pathlib import Path

from trimtab_protocol.errors import StorageError


def write_atomically(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Replace a file in one step; readers see the old content or the new one.

    Raises:
        StorageError: The folder cannot be written.
    """
    raw = content.encode() if isinstance(content, str) else content
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
