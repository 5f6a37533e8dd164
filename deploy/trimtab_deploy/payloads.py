"""Payloads: model files by the SHA-256 of their content.

Rules:
    1. A file is under its digest only when it was written whole, hashed and synced.
    2. A payload is never changed; writing one that is there is no work and no error.
    3. Upload and reading are bounded in memory: pieces of a stream in, single chunks out.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from trimtab_deploy.files import sync_folder
from trimtab_protocol.errors import ErrorCode, ProtocolError, StorageError, TrustError

SHA256 = re.compile(r"[0-9a-f]{64}")


class PayloadStore:
    """A folder of payloads.

    Args:
        folder: Made if missing; drafts of interrupted uploads are removed.
        max_payload_bytes: A longer upload is refused.

    Raises:
        StorageError: The folder cannot be made.
    """

    def __init__(self, folder: Path, max_payload_bytes: int) -> None:
        self._folder = folder
        self._max_payload_bytes = max_payload_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for draft in folder.glob(".draft-*"):
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"cannot use {folder}: {error.strerror}") from error

    def length_bytes(self, sha256: str) -> int | None:
        """Length of a payload; None if it is not here."""
        try:
            return self._path(sha256).stat().st_size
        except OSError:
            return None

    async def put(self, sha256: str, pieces: AsyncIterator[bytes]) -> bool:
        """Store a payload; True if it is new.

        Args:
            sha256: Digest that the content must have, lowercase hexadecimal.
            pieces: The content in order.

        Raises:
            ProtocolError: The digest is not one.
            TrustError: The content has another digest (`trust.payload_digest`) or is too long
                (`trust.payload_length`). Nothing was kept.
            StorageError: The folder cannot be written.
        """
        if not SHA256.fullmatch(sha256):
            raise ProtocolError(
                f"a payload is named by 64 lowercase hexadecimal digits, not {sha256[:80]!r}"
            )
        if self.length_bytes(sha256) is not None:
            return False
        draft = self._folder / f".draft-{secrets.token_hex(8)}"
        try:
            with draft.open("xb") as file:
                await self._receive(file, sha256, pieces)
                await asyncio.to_thread(_sync, file)
            await asyncio.to_thread(self._keep, draft, sha256)
        except OSError as error:
            raise StorageError(f"cannot store {sha256}: {error.strerror}") from error
        finally:
            draft.unlink(missing_ok=True)
        return True

    def open_chunks(self, sha256: str) -> ChunkReader | None:
        """Open a payload for reading chunks; None if it is not here."""
        if not SHA256.fullmatch(sha256):
            return None
        try:
            return ChunkReader(os.open(self._path(sha256), os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return None

    async def _receive(self, file: BinaryIO, sha256: str, pieces: AsyncIterator[bytes]) -> None:
        digest, length_bytes = hashlib.sha256(), 0
        async for piece in pieces:
            length_bytes += len(piece)
            if length_bytes > self._max_payload_bytes:
                raise TrustError(
                    f"a payload has at most {self._max_payload_bytes} bytes",
                    code=ErrorCode.TRUST_PAYLOAD_LENGTH,
                )
            await asyncio.to_thread(_append, file, digest, piece)
        if digest.hexdigest() != sha256:
            raise TrustError(
                f"expected a payload with SHA-256 {sha256}, received {length_bytes} bytes with "
                f"{digest.hexdigest()}",
                code=ErrorCode.TRUST_PAYLOAD_DIGEST,
            )

    def _keep(self, draft: Path, sha256: str) -> None:
        target = self._path(sha256)
        target.parent.mkdir(exist_ok=True)
        draft.replace(target)
        sync_folder(target.parent)
        sync_folder(self._folder)

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256


class ChunkReader:
    """An open payload. Close it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, index: int, chunk_bytes: int) -> bytes:
        """Chunk `index`; empty beyond the end or if the disk fails."""
        try:
            return os.pread(self._descriptor, chunk_bytes, index * chunk_bytes)
        except (OSError, OverflowError):
            return b""

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)


def _append(file: BinaryIO, digest: hashlib._Hash, piece: bytes) -> None:
    digest.update(piece)
    file.write(piece)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
