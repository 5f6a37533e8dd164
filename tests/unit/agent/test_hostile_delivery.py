"""A delivery in which anything may come: what is on disk is right, or it is lacking."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab_agent.fetch import Fetch
from trimtab_agent.partial import PartFile
from trimtab_agent.window import WindowSettings
from trimtab_protocol.errors import ErrorCode, TransientError, TrimtabError, TrustError
from trimtab_protocol.manifest import ModelFormat, Payload, describe_payload

CHUNK = 1024

Coming = tuple[int, bytes]


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[bytes, list[Coming]]:
    """A payload, and chunks that come for it: good, changed, cut, of another index, or noise."""
    seed = draw(st.binary(min_size=1, max_size=64))
    length = draw(st.integers(1, 6 * CHUNK))
    content = (seed * (length // len(seed) + 1))[:length]
    count = -(-length // CHUNK)
    coming: list[Coming] = []
    for _ in range(draw(st.integers(0, 20))):
        index = draw(st.integers(0, count - 1))
        good = content[index * CHUNK : (index + 1) * CHUNK]
        at = draw(st.integers(0, len(good) - 1))
        changed = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        other = draw(st.sampled_from([-1, -count, count, 2**31, 2**63]))
        coming.append(
            draw(
                st.sampled_from(
                    [
                        (index, good),
                        (index, good),
                        (index, changed),
                        (index, good[:at]),
                        (index, good + b"\0"),
                        (other, good),
                        (index, draw(st.binary(max_size=2 * CHUNK))),
                    ]
                )
            )
        )
    return content, coming


def run_delivery(path: Path, payload: Payload, coming: list[Coming]) -> tuple[Fetch, set[int]]:
    """Everything comes; what the fetch asked for and what it refused."""
    asked: set[int] = set()
    part = PartFile(path, payload)
    fetch = Fetch(payload, part, WindowSettings(), asked.update, 0.0)
    try:
        fetch.ask(0.0)
        for number, (index, chunk) in enumerate(coming):
            try:
                fetch.on_chunk(index, chunk, float(number))
            except (TrustError, TransientError):
                break
        else:
            fetch.on_tick(float(len(coming)))
    finally:
        fetch.close()
    return fetch, asked


@settings(max_examples=150, deadline=None)
@given(deliveries())
def test_whatever_comes_only_true_chunks_are_kept(delivery: tuple[bytes, list[Coming]]) -> None:
    content, coming = delivery
    payload = describe_payload(content, ModelFormat.ONNX, CHUNK)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.part"
        fetch, asked = run_delivery(path, payload, coming)
        on_disk = path.read_bytes()
        with PartFile(path, payload) as part:
            missing = set(part.missing())
    assert len(on_disk) == len(content), "no chunk makes the file longer or shorter"
    assert asked <= set(range(payload.chunk_count)), "only chunks of the payload are asked for"
    for index in range(payload.chunk_count):
        place = slice(index * CHUNK, (index + 1) * CHUNK)
        kept = on_disk[place]
        assert kept == content[place] or kept == bytes(len(kept)), "kept as it is, or not at all"
    assert fetch.payload.chunk_count - fetch.fetched_count == len(missing)
    assert fetch.is_done == (on_disk == content and not missing)


@settings(max_examples=60, deadline=None)
@given(deliveries())
def test_what_a_hostile_delivery_left_behind_is_completed_by_an_honest_one(
    delivery: tuple[bytes, list[Coming]],
) -> None:
    content, coming = delivery
    payload = describe_payload(content, ModelFormat.ONNX, CHUNK)
    honest = [
        (index, content[index * CHUNK : (index + 1) * CHUNK])
        for index in range(payload.chunk_count)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.part"
        run_delivery(path, payload, coming)
        fetch, _ = run_delivery(path, payload, honest)
        assert fetch.is_done
        assert path.read_bytes() == content


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 255).filter(lambda byte: byte != 0x5A), min_size=10, max_size=10))
def test_a_delivery_of_nothing_but_false_chunks_ends_with_a_trust_error(fills: list[int]) -> None:
    payload = describe_payload(b"\x5a" * CHUNK, ModelFormat.ONNX, CHUNK)
    ended: TrimtabError | None = None
    with tempfile.TemporaryDirectory() as folder:
        part = PartFile(Path(folder) / "p.part", payload)
        fetch = Fetch(payload, part, WindowSettings(), lambda _: None, 0.0)
        for number, fill in enumerate(fills):
            try:
                fetch.on_chunk(0, bytes([fill]) * CHUNK, float(number))
            except TrustError as error:
                ended = error
                break
        fetch.close()
    assert ended is not None
    assert ended.code is ErrorCode.TRUST_CHUNK_DIGEST
    assert not fetch.is_done
