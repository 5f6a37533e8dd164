"""A payload that is arriving."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trimtab_agent.partial import PartFile
from trimtab_protocol.errors import ErrorCode, StorageError, TrustError
from trimtab_protocol.manifest import ModelFormat, describe_payload

CHUNK = 1024
CONTENT = bytes(i % 251 for i in range(3 * CHUNK + 100))
PAYLOAD = describe_payload(CONTENT, ModelFormat.ONNX, CHUNK)


def count_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def chunk(index: int) -> bytes:
    return CONTENT[index * CHUNK : (index + 1) * CHUNK]


def test_chunks_may_come_in_any_order_and_make_the_file(tmp_path: Path) -> None:
    with PartFile(tmp_path / "payloads" / "p.part", PAYLOAD) as part:
        assert part.missing() == [0, 1, 2, 3]
        for index in (3, 0, 2, 1):
            part.write(index, chunk(index))
        assert part.missing() == []
    assert (tmp_path / "payloads" / "p.part").read_bytes() == CONTENT


def test_a_new_object_finds_by_hashing_what_has_arrived(tmp_path: Path) -> None:
    with PartFile(tmp_path / "p", PAYLOAD) as part:
        part.write(1, chunk(1))
        part.write(3, chunk(3))
    with PartFile(tmp_path / "p", PAYLOAD) as part:
        assert part.missing() == [0, 2]


@pytest.mark.parametrize(
    ("left_bytes", "missing"), [(0, [0, 1, 2, 3]), (CHUNK, [1, 2, 3]), (2 * CHUNK + 7, [2, 3])]
)
def test_what_a_power_cut_tore_off_is_missing(
    tmp_path: Path, left_bytes: int, missing: list[int]
) -> None:
    path = tmp_path / "p"
    path.write_bytes(CONTENT[:left_bytes])
    with PartFile(path, PAYLOAD) as part:
        assert part.missing() == missing


def test_a_chunk_of_which_one_bit_changed_on_disk_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_bytes(CONTENT[:1500] + bytes([CONTENT[1500] ^ 1]) + CONTENT[1501:])
    with PartFile(path, PAYLOAD) as part:
        assert part.missing() == [1]


def test_a_file_that_is_too_long_is_cut_to_its_payload(tmp_path: Path) -> None:
    path = tmp_path / "p"
    path.write_bytes(CONTENT + b"more")
    with PartFile(path, PAYLOAD) as part:
        assert part.missing() == []
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(chunk(0)[:-1], ErrorCode.TRUST_PAYLOAD_LENGTH, id="short"),
        pytest.param(chunk(0) + b"x", ErrorCode.TRUST_PAYLOAD_LENGTH, id="long"),
        pytest.param(chunk(3), ErrorCode.TRUST_PAYLOAD_LENGTH, id="length of the last one"),
        pytest.param(b"\0" * CHUNK, ErrorCode.TRUST_CHUNK_DIGEST, id="other bytes"),
        pytest.param(chunk(1), ErrorCode.TRUST_CHUNK_DIGEST, id="another chunk"),
    ],
)
def test_a_false_chunk_is_refused_and_nothing_is_written(
    tmp_path: Path, content: bytes, code: ErrorCode
) -> None:
    path = tmp_path / "p"
    with PartFile(path, PAYLOAD) as part:
        part.write(1, chunk(1))
        before = path.read_bytes()
        with pytest.raises(TrustError, match="chunk 0") as caught:
            part.write(0, content)
        assert caught.value.code is code
        assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "payloads").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="payloads"):
        PartFile(tmp_path / "payloads" / "p", PAYLOAD)


def test_no_descriptor_is_left_when_the_file_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", refuse)
    before = count_descriptors()
    with pytest.raises(StorageError, match="No space left"):
        PartFile(tmp_path / "p", PAYLOAD)
    assert count_descriptors() == before


@pytest.mark.parametrize("call", ["pwrite", "pread"])
def test_a_disk_that_fails_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(5, "Input/output error")

    with PartFile(tmp_path / "p", PAYLOAD) as part:
        monkeypatch.setattr(os, call, fail)
        with pytest.raises(StorageError, match="Input/output error"):
            part.write(0, chunk(0)) if call == "pwrite" else part.missing()
