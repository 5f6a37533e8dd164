"""A payload that is arriving: one sparse file, no bookkeeping beside it.

Which chunks are there is not written down: it is found by hashing. After a kill or a power cut
the digests say exactly which chunks are whole, so no order of writes has to be trusted.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from trimtab_agent.disk import storage_errors
from trimtab_protocol.errors import ErrorCode, TrustError
from trimtab_protocol.manifest import Payload


class PartFile:
    """Chunks of one payload on disk.

    Raises:
        StorageError: The file cannot be made or written.
    """

    def __init__(self, path: Path, payload: Payload) -> None:
        self._path = path
        self._payload = payload
        self._digests = payload.chunk_digests()
        with storage_errors("make", path), ExitStack() as undo:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            undo.callback(os.close, self._descriptor)
            os.ftruncate(self._descriptor, payload.length_bytes)
            undo.pop_all()

    def __enter__(self) -> PartFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def missing(self) -> list[int]:
        """Indices of the chunks that are not there or not whole; reads the file.

        Raises:
            StorageError: The disk refuses.
        """
        with storage_errors("read", self._path):
            return [index for index in range(self._payload.chunk_count) if not self._has(index)]

    def write(self, index: int, chunk: bytes) -> None:
        """Check a chunk and write it into its place.

        Raises:
            TrustError: Wrong length (`trust.payload_length`) or digest (`trust.chunk_digest`);
                nothing was written.
            StorageError: The disk refuses.
        """
        expected_bytes = self._payload.chunk_length_bytes(index)
        if len(chunk) != expected_bytes:
            raise TrustError(
                f"chunk {index} has {len(chunk)} bytes instead of {expected_bytes}",
                code=ErrorCode.TRUST_PAYLOAD_LENGTH,
            )
        if hashlib.sha256(chunk).digest() != self._digests[index]:
            raise TrustError(
                f"chunk {index} does not have the digest that the manifest gives it",
                code=ErrorCode.TRUST_CHUNK_DIGEST,
            )
        with storage_errors("write", self._path):
            os.pwrite(self._descriptor, chunk, index * self._payload.chunk_bytes)

    def close(self) -> None:
        """Close the file; it stays on disk."""
        os.close(self._descriptor)

    def _has(self, index: int) -> bool:
        length_bytes = self._payload.chunk_length_bytes(index)
        chunk = os.pread(self._descriptor, length_bytes, index * self._payload.chunk_bytes)
        return hashlib.sha256(chunk).digest() == self._digests[index]
