"""Room on the disk: what nothing uses gives way, what is used never does, the rest is refused."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.agent_rig import AgentRig
from support.artifacts import make_artifact
from trimtab_agent.disk import Disk
from trimtab_agent.store import Store
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import SignedManifest
from trimtab_protocol.signing import read_manifest

CHUNK = 1024
NAMES = ("digits", "faces", "words")
SIZE = 400 * CHUNK


def artifact(name: str, version: int, size: int = CHUNK) -> tuple[SignedManifest, bytes]:
    payload = bytes((i * version + len(name)) % 251 for i in range(size + version))
    return make_artifact(name, version, payload, chunk_bytes=CHUNK)


@dataclass
class RandomStore:
    """A store with whatever the strategy put into it."""

    store: Store
    in_flight: dict[str, bytes]

    def add_payload(self, name: str, version: int) -> SignedManifest:
        signed, payload = artifact(name, version)
        manifest = read_manifest(signed)
        part = self.store.part_path(manifest.payload.sha256)
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(payload)
        self.store.adopt_part(manifest.payload)
        return signed


ITEM = st.tuples(
    st.sampled_from(NAMES),
    st.integers(1, 6),
    st.sampled_from(["payload", "slot", "active", "part", "in flight part", "in flight slot"]),
)


def build(root: Path, items: list[tuple[str, int, str]]) -> RandomStore:
    made = RandomStore(Store(root, Disk()), {})
    for name, version, kind in items:
        signed, payload = artifact(name, version)
        sha256 = read_manifest(signed).payload.sha256
        if "part" in kind:
            if not made.store.payload_path(sha256).exists():
                made.store.part_path(sha256).parent.mkdir(parents=True, exist_ok=True)
                made.store.part_path(sha256).write_bytes(payload)
        else:
            made.add_payload(name, version)
        if kind in ("slot", "active", "in flight slot"):
            slot = made.store.build_slot(signed)
            if kind == "active":
                made.store.remember_good(name)
                made.store.activate(slot)
        if kind.startswith("in flight"):
            made.in_flight[sha256] = payload
    return made


@settings(max_examples=80, deadline=None)
@given(items=st.lists(ITEM, max_size=12), wanted_bytes=st.integers(0, 30 * CHUNK))
def test_making_room_never_touches_what_is_active_last_good_or_under_way(
    items: list[tuple[str, int, str]], wanted_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = build(Path(folder), items)
        store, in_flight = made.store, frozenset(made.in_flight)
        slots = [*map(store.active, NAMES), *map(store.last_good, NAMES)]
        slots_before = sorted(Path(folder, "slots").glob("*/*"))
        freed_bytes = store.make_room(wanted_bytes, in_flight)
        assert [*map(store.active, NAMES), *map(store.last_good, NAMES)] == slots
        assert all(slot.is_whole() for slot in slots if slot is not None)
        for sha256, payload in made.in_flight.items():
            paths = [store.payload_path(sha256), store.part_path(sha256)]
            assert payload in [path.read_bytes() for path in paths if path.exists()]
        for path in slots_before:
            if any(sha256.startswith(path.name[-12:]) for sha256 in in_flight):
                assert path.exists()
        if freed_bytes < wanted_bytes:
            assert store.make_room(10**9, in_flight) == 0, "something that nothing uses was kept"


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    made = build(tmp_path, [("digits", 1, "slot")])
    manifest_bytes = len((next(tmp_path.glob("slots/*/*")) / "manifest.json").read_bytes())
    assert made.store.used_bytes() == len(artifact("digits", 1)[1]) + manifest_bytes


def test_the_longest_unused_gives_way_first_and_no_more_than_needed(tmp_path: Path) -> None:
    made = build(tmp_path, [("digits", version, "payload") for version in (1, 2, 3)])
    paths = []
    for version in (1, 2, 3):
        sha256 = read_manifest(artifact("digits", version)[0]).payload.sha256
        paths.append(made.store.payload_path(sha256))
    for path, seconds in zip(paths, (300, 100, 200), strict=True):
        os.utime(path, (seconds, seconds))
    made.store.make_room(1, frozenset())
    assert [path.exists() for path in paths] == [True, False, True]


@pytest.fixture
def rig(tmp_path: Path) -> AgentRig:
    rig = AgentRig(tmp_path)
    for version in (1, 2):
        rig.desire(*artifact("digits", version, SIZE))
        rig.settle()
    assert str(rig.active()) == "digits@2"
    return rig


def set_quota(rig: AgentRig, extra_bytes: int) -> None:
    rig.max_store_bytes = rig.tools.store.used_bytes() + extra_bytes
    rig.start()


def detail(rig: AgentRig, name: str = "digits") -> str:
    record = rig.journal.newest(name)
    assert record is not None
    return record.detail


def test_an_artifact_over_the_quota_is_refused_with_the_numbers(rig: AgentRig) -> None:
    set_quota(rig, SIZE // 2)
    rig.delivery.requested.clear()
    rig.desire(*artifact("digits", 3, SIZE))
    rig.settle()
    assert rig.error_code() is ErrorCode.REJECTED_DISK
    assert rig.delivery.requested == []
    assert f"needs {SIZE + 3} bytes" in detail(rig)
    assert f"quota of {rig.max_store_bytes}" in detail(rig)
    assert "0 bytes that nothing uses were deleted" in detail(rig)
    assert str(rig.active()) == "digits@2"


def test_what_nothing_uses_gives_way_to_what_arrives(rig: AgentRig) -> None:
    rig.ask(*artifact("other", 9, SIZE))
    rig.settle()
    set_quota(rig, SIZE // 2)
    rig.desire(*artifact("digits", 3, SIZE))
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert str(rig.active()) == "digits@3"
    sha256 = read_manifest(artifact("other", 9, SIZE)[0]).payload.sha256
    assert not rig.tools.store.payload_path(sha256).exists()


def test_a_full_disk_makes_room_without_any_quota(rig: AgentRig) -> None:
    rig.ask(*artifact("other", 9, SIZE))
    rig.settle()
    used_bytes = rig.tools.store.used_bytes()
    rig.free_disk = lambda: SIZE // 2 + used_bytes - rig.tools.store.used_bytes()
    rig.desire(*artifact("digits", 3, SIZE))
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED


def test_an_artifact_that_is_refused_for_another_reason_costs_nothing_its_room(
    rig: AgentRig,
) -> None:
    rig.ask(*artifact("other", 9, SIZE))
    rig.settle()
    set_quota(rig, SIZE // 2)
    signed, payload = make_artifact(
        "digits", 3, bytes(SIZE), chunk_bytes=CHUNK, device_classes=("another-board",)
    )
    rig.desire(signed, payload)
    rig.settle()
    assert rig.error_code() is ErrorCode.REJECTED_DEVICE_CLASS
    sha256 = read_manifest(artifact("other", 9, SIZE)[0]).payload.sha256
    assert rig.tools.store.payload_path(sha256).exists()


def test_what_has_arrived_already_is_not_counted_against_itself(rig: AgentRig) -> None:
    """A part that an interrupted deployment left is used on, not refused by its own size."""
    signed, payload = artifact("digits", 3, SIZE)
    part = rig.tools.store.part_path(read_manifest(signed).payload.sha256)
    set_quota(rig, SIZE + 200 * CHUNK)
    part.write_bytes(payload[: SIZE // 2] + bytes(len(payload) - SIZE // 2))
    rig.desire(signed, payload)
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED


def test_a_trial_over_the_quota_is_refused_and_answered(rig: AgentRig) -> None:
    set_quota(rig, SIZE // 2)
    rig.ask(*artifact("other", 9, SIZE))
    rig.settle()
    assert rig.reports()[-1] == ("trial", "t1", ErrorCode.REJECTED_DISK)


def test_the_slot_of_an_update_that_was_rolled_back_gives_way(rig: AgentRig) -> None:
    rig.children.verdicts["digits@3:check"] = (ErrorCode.MODEL_LOAD, "made to fail")
    rig.desire(*artifact("digits", 3, SIZE))
    rig.settle()
    assert rig.state() is DeploymentState.ROLLED_BACK
    left_behind = next((rig.root / "slots" / "digits").glob("3-*"))
    set_quota(rig, SIZE // 2)
    rig.desire(*artifact("digits", 4, SIZE))
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert not left_behind.exists()
