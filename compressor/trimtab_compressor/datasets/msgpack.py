"""The part of MessagePack that word lists use: arrays, small maps, texts and small numbers.

Layout: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trimtab_protocol.errors import TrustError

TEXT_LENGTH_BYTES = {0xD9: 1, 0xDA: 2, 0xDB: 4}
ARRAY_LENGTH_BYTES = {0xDC: 2, 0xDD: 4}


def read_msgpack(packed: bytes) -> list[Any]:
    """Read one array.

    Raises:
        TrustError: It is damaged, not an array, or has something else in it.
    """
    try:
        found = _Reader(packed).read()
    except (IndexError, UnicodeDecodeError) as error:
        raise TrustError("a word list ends too early or is damaged") from error
    if not isinstance(found, list):
        raise TrustError("a word list is not an array")
    return found


@dataclass
class _Reader:
    packed: bytes
    at: int = 0

    def read(self) -> Any:
        first = self._number(1)
        if first < 0x80:
            return first
        if first < 0x90:
            return {self.read(): self.read() for _ in range(first & 0x0F)}
        if first < 0xA0:
            return [self.read() for _ in range(first & 0x0F)]
        if first < 0xC0:
            return self._text(first & 0x1F)
        if first in TEXT_LENGTH_BYTES:
            return self._text(self._number(TEXT_LENGTH_BYTES[first]))
        if first in ARRAY_LENGTH_BYTES:
            return [self.read() for _ in range(self._number(ARRAY_LENGTH_BYTES[first]))]
        raise TrustError(f"a word list holds an element of kind {first:#x}, which is not expected")

    def _number(self, length: int) -> int:
        return int.from_bytes(self._take(length), "big")

    def _text(self, length: int) -> str:
        return self._take(length).decode()

    def _take(self, length: int) -> bytes:
        part = self.packed[self.at : self.at + length]
        if len(part) < length:
            raise IndexError
        self.at += length
        return part
