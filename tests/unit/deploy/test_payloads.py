from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from trimtab_deploy.payloads import PayloadStore
from trimtab_protocol.errors import ErrorCode, ProtocolError, StorageError, TrustError

BODY = random.Random(7).randbytes(10_000)
DIGEST = hashlib.sha256(BODY).hexdigest()


async def pieces(body: bytes, piece_bytes: int = 999) -> AsyncIterator[bytes]:
    for start in range(0, len(body), piece_bytes):
        yield body[start : start + piece_bytes]


def put(store: PayloadStore, digest: str, body: bytes) -> bool:
    return asyncio.run(store.put(digest, pieces(body)))


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob(".draft-*"))


def test_a_payload_comes_back_chunk_by_chunk(tmp_path: Path) -> None:
    store = PayloadStore(tmp_path, 1 << 20)
    assert put(store, DIGEST, BODY)
    assert store.length_bytes(DIGEST) == len(BODY)
    reader = store.open_chunks(DIGEST)
    assert reader is not None
    with closing(reader):
        chunks = [reader.read(index, 4096) for index in range(3)]
        assert b"".join(chunks) == BODY
        assert reader.read(3, 4096) == b""
        assert reader.read(2**62, 2**20) == b""


def test_storing_it_again_is_no_work(tmp_path: Path) -> None:
    store = PayloadStore(tmp_path, 1 << 20)
    assert put(store, DIGEST, BODY)
    assert not put(store, DIGEST, b"never looked at")


@pytest.mark.parametrize("body", [BODY[:-1], BODY + b"x", b"", BODY[::-1]])
def test_another_content_is_refused_and_nothing_is_kept(tmp_path: Path, body: bytes) -> None:
    store = PayloadStore(tmp_path, 1 << 20)
    with pytest.raises(TrustError) as caught:
        put(store, DIGEST, body)
    assert caught.value.code is ErrorCode.TRUST_PAYLOAD_DIGEST
    assert store.length_bytes(DIGEST) is None
    assert store.open_chunks(DIGEST) is None
    assert leftovers(tmp_path) == []


def test_too_much_is_refused_before_it_is_all_here(tmp_path: Path) -> None:
    store = PayloadStore(tmp_path, 5000)
    seen = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal seen
        async for piece in pieces(BODY):
            seen += len(piece)
            yield piece

    with pytest.raises(TrustError) as caught:
        asyncio.run(store.put(DIGEST, counted()))
    assert caught.value.code is ErrorCode.TRUST_PAYLOAD_LENGTH
    assert seen < len(BODY)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["", "../../etc/passwd", DIGEST.upper(), DIGEST[:-1]])
def test_a_name_that_is_no_digest_is_refused(tmp_path: Path, name: str) -> None:
    store = PayloadStore(tmp_path, 1 << 20)
    with pytest.raises(ProtocolError):
        put(store, name, BODY)
    assert store.open_chunks(name) is None


def test_drafts_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".draft-old").write_bytes(b"half")
    PayloadStore(tmp_path, 1 << 20)
    assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        PayloadStore(tmp_path / "file" / "below", 1 << 20)
