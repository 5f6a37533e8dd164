"""How many bytes a file takes once a compressor has been over it."""

from __future__ import annotations

import zlib
from pathlib import Path

COMPRESSOR = "zlib, level 9"
"""DEFLATE, as gzip and HTTP's "deflate" have it; in every Python."""

_LEVEL = 9


def compressed_bytes(content: bytes) -> int:
    """Length of the content once compressed, see COMPRESSOR."""
    return len(zlib.compress(content, _LEVEL))


def compressed_file_bytes(path: Path) -> int:
    """Length of a file's content once compressed, see COMPRESSOR."""
    return compressed_bytes(path.read_bytes())
