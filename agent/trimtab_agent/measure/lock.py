"""One measurement at a time on a machine: a lock file that all users share."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trimtab_protocol.errors import StorageError


def _ignore() -> None:
    return


@contextmanager
def machine_lock(path: str | None, on_wait: Callable[[], None] = _ignore) -> Iterator[None]:
    """Wait until nobody else measures on this machine.

    Args:
        path: The lock; None for none.
        on_wait: Called if somebody does.

    Raises:
        StorageError: The lock cannot be opened.
    """
    if path is None:
        yield
        return
    descriptor = _open_lock(Path(path))
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    """Open the lock of all users; made only if it is not there.

    In a sticky folder such as /tmp the kernel refuses O_CREAT on another user's file, even to root
    (fs.protected_regular, Documentation/admin-guide/sysctl/fs.rst).
    """
    try:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.fchmod(descriptor, 0o644)  # whatever the umask is
            return descriptor
    except OSError as error:
        raise StorageError(f"cannot open the measuring lock {path}: {error.strerror}") from error
