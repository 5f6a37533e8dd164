"""The newest desired state, kept on disk: what is known must not depend on the broker."""

from __future__ import annotations

from pathlib import Path

from trimtab_agent.disk import Disk
from trimtab_protocol.errors import ProtocolError
from trimtab_protocol.messages import Desired, encode, parse_message


class Desires:
    """The newest desired state.

    Args:
        path: Where it is kept.
        disk: For durable writes.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self.newest = self._read()

    @property
    def sequence(self) -> int:
        """Sequence number of the newest; 0 if there was none yet."""
        return self.newest.sequence if self.newest is not None else 0

    def is_news(self, desired: Desired) -> bool:
        """Whether this is newer; an old retained message and a repeat are not. [P-4.1]"""
        return self.newest is None or desired.sequence > self.newest.sequence

    def remember(self, desired: Desired) -> None:
        """Keep it as the newest.

        Raises:
            StorageError: The disk refuses; the older one stays the newest.
        """
        self._disk.write_file(self._path, encode(desired))
        self.newest = desired

    def _read(self) -> Desired | None:
        try:
            return parse_message(Desired, self._path.read_bytes())
        except (OSError, ProtocolError):
            return None  # none yet, or of another version: the broker has the newest
