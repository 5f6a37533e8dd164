"""[P-1.1] [P-1.2] [P-1.3] [P-1.4] [P-1.5] Topics are built and read in one place."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from support.strategies import names, shas
from trimtab_protocol.base import Name
from trimtab_protocol.errors import ProtocolError
from trimtab_protocol.manifest import MAX_PAYLOAD_BYTES, MIN_CHUNK_BYTES
from trimtab_protocol.topics import (
    DEVICE_READS,
    DEVICE_WRITES,
    RETAINED,
    ChunkTopic,
    DeviceTopic,
    Leaf,
    chunk_filter,
    chunk_topic,
    device_topic,
    fleet_filter,
    parse_topic,
)

SHA = "0123456789abcdef" * 4
LAST_INDEX = MAX_PAYLOAD_BYTES // MIN_CHUNK_BYTES - 1
indices = st.integers(0, LAST_INDEX)
levels = st.one_of(
    names,
    shas,
    st.text(max_size=12),
    st.sampled_from(["trimtab", "v1", "d", "chunk", "+", "#", "", "7", *(x.value for x in Leaf)]),
)


@given(site=names, device=names, leaf=st.sampled_from(Leaf))
def test_a_device_topic_is_taken_apart_into_what_it_was_built_from(
    site: str, device: str, leaf: Leaf
) -> None:
    """[P-1.1]"""
    topic = device_topic(site, device, leaf)
    assert topic == f"trimtab/v1/{site}/d/{device}/{leaf.value}"
    assert parse_topic(topic) == DeviceTopic(site, device, leaf)


@given(site=names, device=names, sha256=shas, index=indices)
@example(site="a", device="b", sha256=SHA, index=LAST_INDEX)
def test_a_chunk_topic_is_taken_apart_into_what_it_was_built_from(
    site: str, device: str, sha256: str, index: int
) -> None:
    """[P-1.1]"""
    topic = chunk_topic(site, device, sha256, index)
    assert topic == f"trimtab/v1/{site}/d/{device}/chunk/{sha256}/{index}"
    assert parse_topic(topic) == ChunkTopic(site, device, sha256, index)


@given(parts=st.lists(levels, min_size=1, max_size=10))
def test_junk_is_refused_and_what_is_read_has_only_one_spelling(parts: list[str]) -> None:
    """[P-1.1]"""
    topic = "/".join(["trimtab", "v1", *parts])
    try:
        parsed = parse_topic(topic)
    except ProtocolError:
        return
    rebuilt = (
        device_topic(parsed.site, parsed.device, parsed.leaf)
        if isinstance(parsed, DeviceTopic)
        else chunk_topic(parsed.site, parsed.device, parsed.sha256, parsed.index)
    )
    assert rebuilt == topic


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "/",
        "trimtab/v1",
        "trimtab/v1/home/d/pi",
        "trimtab/v1/home/d/pi/",
        "trimtab/v1/home/d/pi/birth/",
        "/trimtab/v1/home/d/pi/birth",
        "trimtab/v2/home/d/pi/birth",
        "other/v1/home/d/pi/birth",
        "trimtab/v1/home/x/pi/birth",
        "trimtab/v1/home/d/pi/Birth",
        "trimtab/v1/home/d/pi/password",
        "trimtab/v1/home/d/+/birth",
        "trimtab/v1/+/d/pi/birth",
        "trimtab/v1/home/d/Pi/birth",
        "trimtab/v1/home/d/../birth",
        "trimtab/v1/home/d/pi\n/birth",
        "trimtab/v1/home/d//birth",
        f"trimtab/v1/home/d/{'p' * 65}/birth",
        "trimtab/v1/home/d/pi/chunk",
        f"trimtab/v1/home/d/pi/chunk/{SHA}",
        f"trimtab/v1/home/d/pi/chunk/{SHA}/",
        f"trimtab/v1/home/d/pi/chunk/{SHA}/-1",
        f"trimtab/v1/home/d/pi/chunk/{SHA}/+1",
        f"trimtab/v1/home/d/pi/chunk/{SHA}/1.0",
        f"trimtab/v1/home/d/pi/chunk/{SHA}/007",
        f"trimtab/v1/home/d/pi/chunk/{SHA}/00",
        f"trimtab/v1/home/d/pi/chunk/{SHA}/1\n",
        f"trimtab/v1/home/d/pi/chunk/{SHA}/10000000",
        f"trimtab/v1/home/d/pi/chunk/{SHA}/١",
        f"trimtab/v1/home/d/pi/chunk/{SHA.upper()}/1",
        f"trimtab/v1/home/d/pi/chunk/{SHA[:-1]}/1",
        f"trimtab/v1/home/d/pi/chunks/{SHA}/1",
        f"trimtab/v1/home/d/pi/birth/{SHA}/1",
        "trimtab/v1/home/d/pi/birth\0",
        "x" * 100_000,
    ],
)
def test_a_topic_that_is_not_ours_is_refused(topic: str) -> None:
    """[P-1.1]"""
    with pytest.raises(ProtocolError) as caught:
        parse_topic(topic)
    assert len(str(caught.value)) < 300


@given(site=names, device=names, sha256=shas, index=indices, leaf=st.sampled_from(Leaf))
def test_no_topic_or_filter_is_over_what_the_narrowest_broker_allows(
    site: str, device: str, sha256: str, index: int, leaf: Leaf
) -> None:
    """[P-1.3] AWS IoT: seven slashes, 256 bytes."""
    for topic in (
        device_topic(site, device, leaf),
        chunk_topic(site, device, sha256, index),
        chunk_filter(site, device),
        fleet_filter(site, leaf),
    ):
        assert topic.count("/") <= 7
        assert len(topic.encode()) <= 256


def test_the_longest_names_still_make_a_topic_that_fits() -> None:
    """[P-1.3]"""
    longest = chunk_topic("s" * 64, "d" * 64, SHA, LAST_INDEX)
    assert longest.count("/") == 7
    assert len(longest) <= 256


def test_a_device_writes_and_reads_disjoint_leaves_that_are_all_leaves() -> None:
    """[P-1.4]"""
    assert {leaf.value for leaf in DEVICE_WRITES} == {
        "birth",
        "status",
        "reported",
        "report",
        "get",
    }
    assert {leaf.value for leaf in DEVICE_READS} == {"desired", "ask", "ack"}
    assert {*DEVICE_WRITES, *DEVICE_READS} == set(Leaf)
    assert len(DEVICE_WRITES) + len(DEVICE_READS) == len(Leaf)


def test_states_are_retained_and_work_is_not() -> None:
    """[P-1.5]"""
    assert {leaf.value for leaf in RETAINED} == {"birth", "status", "desired", "reported"}


@pytest.mark.parametrize("leaf", Leaf)
def test_the_control_plane_subscribes_to_one_leaf_of_every_device(leaf: Leaf) -> None:
    """[P-1.1]"""
    assert fleet_filter("home", leaf) == f"trimtab/v1/home/d/+/{leaf.value}"
    assert fleet_filter("home", leaf) == device_topic("home", "+", leaf)


def test_a_device_subscribes_to_all_of_its_own_chunks() -> None:
    """[P-1.4]"""
    assert chunk_filter("home", "pi") == "trimtab/v1/home/d/pi/chunk/#"
    assert chunk_topic("home", "pi", SHA, 3).startswith(chunk_filter("home", "pi")[:-1])


_NAME: TypeAdapter[str] = TypeAdapter(Name)


@given(text=st.one_of(names, st.text(max_size=70)))
@example(text="pi\n")
@example(text="p" * 65)
@example(text="ü")
def test_a_name_in_a_message_is_a_name_in_a_topic(text: str) -> None:
    """[P-1.2] Two patterns, one rule."""
    try:
        is_name = bool(_NAME.validate_python(text))
    except ValidationError:
        is_name = False
    try:
        is_level = isinstance(parse_topic(device_topic("home", text, Leaf.BIRTH)), DeviceTopic)
    except ProtocolError:
        is_level = False
    assert is_name == is_level


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "_a", "a/b", "a b", "A", "a+", "a#", "a\n"])
def test_a_name_is_safe_as_a_topic_level_and_as_a_folder(name: str) -> None:
    """[P-1.2]"""
    with pytest.raises(ValidationError):
        _NAME.validate_python(name)
