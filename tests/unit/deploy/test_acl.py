from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_deploy.broker.acl import CONTROL_PLANE_USER, may_read, may_write, mosquitto_acl
from trimtab_deploy.broker.mosquitto_files import mosquitto_conf, password_file
from trimtab_protocol.topics import DEVICE_READS, DEVICE_WRITES, NAME_PATTERN, Leaf, device_topic

NAMES = st.from_regex(NAME_PATTERN, fullmatch=True)


@given(NAMES, NAMES, st.sampled_from(list(Leaf)))
def test_a_device_writes_and_reads_its_own_leaves_only(a: str, b: str, leaf: Leaf) -> None:
    topic = device_topic("s", b, leaf)
    assert may_write("s", a, topic) is (a == b and leaf in DEVICE_WRITES)
    assert may_read("s", a, topic) is (a == b and leaf in DEVICE_READS)


@pytest.mark.parametrize(
    "wanted",
    ["#", "+", "trimtab/v1/s/d/#", "trimtab/v1/s/d/+/desired", "trimtab/v1/s/d/a/#", "$SYS/#"],
)
def test_a_filter_wider_than_its_own_topics_is_refused(wanted: str) -> None:
    assert not may_read("s", "a", wanted)


def test_chunks_are_read_and_not_written() -> None:
    assert may_read("s", "a", "trimtab/v1/s/d/a/chunk/#")
    assert may_read("s", "a", "trimtab/v1/s/d/a/chunk/abc/1")
    assert not may_read("s", "a", "trimtab/v1/s/d/ab/chunk/abc/1")
    assert not may_write("s", "a", "trimtab/v1/s/d/a/chunk/abc/1")


def test_the_control_plane_has_its_site_and_no_device_can_have_its_name() -> None:
    assert may_write("s", CONTROL_PLANE_USER, "trimtab/v1/s/d/a/desired")
    assert may_read("s", CONTROL_PLANE_USER, "trimtab/v1/s/d/+/birth")
    assert not may_write("s", CONTROL_PLANE_USER, "trimtab/v1/other/d/a/desired")
    assert not NAME_PATTERN.fullmatch(CONTROL_PLANE_USER)


def test_the_rules_of_mosquitto_are_the_same_list() -> None:
    text = mosquitto_acl("s")
    assert text.count("pattern write") == len(DEVICE_WRITES)
    assert text.count("pattern read") == len(DEVICE_READS) + 1
    assert "pattern read trimtab/v1/s/d/%u/chunk/#" in text


def test_the_queue_of_mosquitto_is_bounded_and_never_zero() -> None:
    conf = mosquitto_conf(Path("/x"), "127.0.0.1", 1883, "root")
    assert "max_queued_messages 100000\n" in conf
    assert "allow_anonymous false\n" in conf
    assert "set_tcp_nodelay true\n" in conf
    assert "user root\n" in conf
    assert "user " not in mosquitto_conf(Path("/x"), "::", 1, None).replace("username", "")


def test_the_password_file_has_one_line_per_user() -> None:
    assert password_file({"b": "$7$2", "a": "$7$1"}) == "a:$7$1\nb:$7$2\n"
