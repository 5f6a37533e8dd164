"""[P-3.6] Golden vectors: inline or grown from a seed, and never larger than they say."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import sys
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from support.strategies import inline_tensors
from trimtab_protocol.errors import ProtocolError
from trimtab_protocol.tensors import (
    DTYPE_BYTES,
    FLOAT32_MAX,
    MAX_TENSOR_BYTES,
    InlineTensor,
    SeededTensor,
    count_elements,
    pack_tensor,
    unpack_tensor,
)

seeds = st.integers(0, 2**63 - 1)
bounds = st.floats(-FLOAT32_MAX, FLOAT32_MAX)


def _inline(shape: tuple[int, ...], compressed: bytes) -> InlineTensor:
    return InlineTensor(
        dtype="uint8", shape=shape, zlib_base64=base64.b64encode(compressed).decode("ascii")
    )


@given(raw=st.binary(min_size=1, max_size=5000))
def test_what_is_packed_comes_out_again(raw: bytes) -> None:
    assert unpack_tensor(pack_tensor("uint8", (len(raw),), raw)) == raw


@given(tensor=inline_tensors())
def test_a_tensor_has_as_many_bytes_as_its_type_and_shape_say(tensor: InlineTensor) -> None:
    expected = count_elements(tensor.shape) * DTYPE_BYTES[tensor.dtype]
    assert len(unpack_tensor(tensor)) == expected


def test_a_scalar_has_one_element() -> None:
    assert count_elements(()) == 1
    assert unpack_tensor(pack_tensor("float32", (), b"\0\0\x80\x3f")) == struct.pack("<f", 1.0)


@pytest.mark.parametrize("length", [0, 11, 13])
def test_packing_refuses_bytes_that_do_not_fit_the_shape(length: int) -> None:
    with pytest.raises(ProtocolError, match="needs 12 bytes"):
        pack_tensor("float32", (3,), bytes(length))


@given(claimed=st.integers(1, 2000), real=st.integers(0, 2000))
def test_a_tensor_that_lies_about_its_length_is_refused(claimed: int, real: int) -> None:
    tensor = _inline((claimed,), zlib.compress(bytes(real)))
    if claimed == real:
        assert unpack_tensor(tensor) == bytes(real)
        return
    with pytest.raises(ProtocolError):
        unpack_tensor(tensor)


def test_a_zlib_bomb_is_refused_without_being_unpacked() -> None:
    bomb = zlib.compress(bytes(256 * 1024 * 1024), 9)
    tensor = _inline((16,), bomb)
    del bomb
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="more"):
            unpack_tensor(tensor)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * 1024 * 1024


@pytest.mark.parametrize(
    "tensor",
    [
        InlineTensor(dtype="int64", shape=(2**40, 2**40), zlib_base64=""),
        SeededTensor(shape=(MAX_TENSOR_BYTES // 4 + 1,), seed=1),
    ],
    ids=lambda tensor: tensor.kind,
)
def test_a_tensor_over_the_limit_is_refused_before_anything_is_allocated(
    tensor: InlineTensor | SeededTensor,
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="over the limit"):
            unpack_tensor(tensor)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000


@pytest.mark.parametrize("text", ["*", "AAA", "not base64", "ünïcode", "AAAA", ""])
def test_data_that_is_not_base64_of_zlib_is_a_protocol_error(text: str) -> None:
    with pytest.raises(ProtocolError):
        unpack_tensor(InlineTensor(dtype="uint8", shape=(4,), zlib_base64=text))


@given(raw=st.binary(min_size=1, max_size=500), data=st.data())
def test_a_tensor_that_is_cut_off_anywhere_is_refused(raw: bytes, data: st.DataObject) -> None:
    compressed = zlib.compress(raw)
    kept = data.draw(st.integers(0, len(compressed) - 1))
    with pytest.raises(ProtocolError):
        unpack_tensor(_inline((len(raw),), compressed[:kept]))


@given(raw=st.binary(min_size=1, max_size=500), data=st.data())
def test_a_changed_byte_never_gives_other_values(raw: bytes, data: st.DataObject) -> None:
    compressed = bytearray(zlib.compress(raw))
    compressed[data.draw(st.integers(0, len(compressed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        assert unpack_tensor(_inline((len(raw),), bytes(compressed))) == raw
    except ProtocolError:
        return


@pytest.mark.parametrize("shape", [(0,), (-1,), (2, 0)])
def test_a_dimension_is_at_least_one(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError):
        SeededTensor(shape=shape, seed=1)
    with pytest.raises(ValidationError):
        _inline(shape, b"")


def test_growth_from_a_seed_gives_the_pinned_bits() -> None:
    grown = unpack_tensor(SeededTensor(shape=(1, 3, 8, 8), seed=42, low=-1.0, high=1.0))
    assert hashlib.sha256(grown).hexdigest() == (
        "a490c4aac6839055989d4213b51238f6c555801efa3418ec0ff3fde1361c6cc4"
    )


@given(seed=seeds, low=bounds, high=bounds)
def test_growth_follows_its_written_formula(seed: int, low: float, high: float) -> None:
    tensor = SeededTensor(shape=(2, 5), seed=seed, low=low, high=high)
    noise = hashlib.shake_256(str(seed).encode("ascii")).digest(10)
    expected = [low + (high - low) / 255.0 * byte for byte in noise]
    assert unpack_tensor(tensor) == struct.pack("<10f", *expected)


@given(seed=seeds, low=bounds, high=bounds)
def test_what_is_grown_is_finite_and_within_its_range(seed: int, low: float, high: float) -> None:
    tensor = SeededTensor(shape=(64,), seed=seed, low=low, high=high)
    values = struct.unpack("<64f", unpack_tensor(tensor))
    slack = 1e-6 * max(abs(low), abs(high)) + 1e-44
    assert all(math.isfinite(value) for value in values)
    assert all(min(low, high) - slack <= value <= max(low, high) + slack for value in values)


def test_a_big_endian_host_swaps_what_it_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = SeededTensor(shape=(8,), seed=1)
    as_grown_here = unpack_tensor(tensor)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "byteorder", {"little": "big", "big": "little"}[sys.byteorder])
        swapped = unpack_tensor(tensor)
    assert struct.unpack(">8f", swapped) == struct.unpack("<8f", as_grown_here)


@given(first=seeds, second=seeds)
def test_other_seeds_grow_other_tensors(first: int, second: int) -> None:
    grown = [unpack_tensor(SeededTensor(shape=(64,), seed=seed)) for seed in (first, second)]
    assert (grown[0] == grown[1]) == (first == second)


@pytest.mark.parametrize("bound", [1e39, -1e39, math.inf, math.nan])
def test_a_range_beyond_float32_is_refused(bound: float) -> None:
    with pytest.raises(ValidationError):
        SeededTensor(shape=(1,), seed=1, low=bound)
    with pytest.raises(ValidationError):
        SeededTensor(shape=(1,), seed=1, high=bound)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_fits_into_63_bits(seed: int) -> None:
    with pytest.raises(ValidationError):
        SeededTensor(shape=(1,), seed=seed)
