"""What is on the device's disk, and what never leaves it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.artifacts import make_artifact
from trimtab_agent import store as store_module
from trimtab_agent.disk import Disk
from trimtab_agent.store import Slot, Store
from trimtab_protocol.errors import ErrorCode, StorageError, TrustError
from trimtab_protocol.manifest import SignedManifest
from trimtab_protocol.signing import read_manifest

CHUNK = 1024


def content(version: int) -> bytes:
    return bytes((i * version) % 251 for i in range(CHUNK + version))


def artifact(version: int) -> SignedManifest:
    return make_artifact("digits", version, content(version), chunk_bytes=CHUNK)[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, Disk())


def add_payload(store: Store, payload: bytes, signed: SignedManifest) -> Path:
    path = store.part_path(read_manifest(signed).payload.sha256)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(payload)
    return store.adopt_part(read_manifest(signed).payload)


def add_slot(store: Store, version: int) -> Slot:
    signed = artifact(version)
    add_payload(store, content(version), signed)
    return store.build_slot(signed)


def test_a_part_that_is_whole_gets_its_final_name(store: Store) -> None:
    signed = artifact(1)
    path = add_payload(store, content(1), signed)
    payload = read_manifest(signed).payload
    assert path == store.payload_path(payload.sha256)
    assert path.read_bytes() == content(1)
    assert not store.part_path(payload.sha256).exists()
    assert store.has_payload(payload)


@pytest.mark.parametrize(
    ("arrived", "code"),
    [
        pytest.param(content(1)[:-1], ErrorCode.TRUST_PAYLOAD_LENGTH, id="short"),
        pytest.param(content(1) + b"x", ErrorCode.TRUST_PAYLOAD_LENGTH, id="long"),
        pytest.param(content(1)[:-1] + b"x", ErrorCode.TRUST_PAYLOAD_DIGEST, id="other bytes"),
    ],
)
def test_a_part_that_is_not_what_its_manifest_says_is_deleted(
    store: Store, arrived: bytes, code: ErrorCode
) -> None:
    with pytest.raises(TrustError) as caught:
        add_payload(store, arrived, artifact(1))
    assert caught.value.code is code
    payload = read_manifest(artifact(1)).payload
    assert not store.part_path(payload.sha256).exists()
    assert not store.has_payload(payload)


def test_without_any_part_there_is_nothing_to_adopt(store: Store) -> None:
    with pytest.raises(TrustError) as caught:
        store.adopt_part(read_manifest(artifact(1)).payload)
    assert caught.value.code is ErrorCode.TRUST_PAYLOAD_LENGTH


def test_a_payload_that_the_disk_changed_since_is_not_adopted_again(store: Store) -> None:
    path = add_payload(store, content(1), artifact(1))
    path.write_bytes(content(1)[:-1] + b"x")
    with pytest.raises(TrustError) as caught:
        store.adopt_part(read_manifest(artifact(1)).payload)
    assert caught.value.code is ErrorCode.TRUST_PAYLOAD_DIGEST
    assert not path.exists()


def test_a_payload_that_cannot_be_read_is_a_storage_error_and_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: Path) -> str:
        raise OSError(5, "Input/output error")

    path = add_payload(store, content(1), artifact(1))
    monkeypatch.setattr(store_module, "hash_file", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        store.adopt_part(read_manifest(artifact(1)).payload)
    assert path.exists()


def test_a_slot_is_found_only_when_its_manifest_is_there(store: Store) -> None:
    slot = add_slot(store, 1)
    found = store.find_slot(slot.ref)
    assert found is not None
    assert found.is_whole()
    assert found.manifest == read_manifest(artifact(1))
    (slot.folder / "manifest.json").unlink()
    assert store.find_slot(slot.ref) is None


def test_building_a_slot_twice_changes_nothing(store: Store) -> None:
    first, again = add_slot(store, 1), store.build_slot(artifact(1))
    assert again == first
    assert again.is_whole()


def test_building_a_slot_again_repairs_a_damaged_one(store: Store) -> None:
    slot = add_slot(store, 1)
    slot.model_path.unlink()
    slot.model_path.write_bytes(content(1)[:-1])
    assert not slot.is_whole()
    assert store.build_slot(artifact(1)).is_whole()


@pytest.mark.parametrize("damage", ["short", "other", "gone"])
def test_a_slot_that_lost_a_byte_is_not_whole(store: Store, damage: str) -> None:
    slot = add_slot(store, 1)
    if damage == "gone":
        slot.model_path.unlink()
    else:
        slot.model_path.write_bytes(content(1)[:-1] + (b"" if damage == "short" else b"x"))
    assert not slot.is_whole()


@pytest.mark.parametrize("damage", [b"", b"{", b'{"manifest_json":"{}"}'])
def test_a_damaged_manifest_is_a_storage_error(store: Store, damage: bytes) -> None:
    slot = add_slot(store, 1)
    store.activate(slot)
    (slot.folder / "manifest.json").write_bytes(damage)
    with pytest.raises(StorageError) as caught:
        store.active("digits")
    assert caught.value.code is ErrorCode.STORAGE_CORRUPT


def test_a_manifest_that_cannot_be_read_is_a_storage_error(store: Store) -> None:
    slot = add_slot(store, 1)
    store.activate(slot)
    (slot.folder / "manifest.json").unlink()
    (slot.folder / "manifest.json").mkdir()
    with pytest.raises(StorageError, match=r"manifest\.json"):
        store.active("digits")


def test_the_links_lead_from_one_model_to_the_next_and_back(store: Store) -> None:
    one, two = add_slot(store, 1), add_slot(store, 2)
    assert store.active("digits") is None
    store.remember_good("digits")
    assert store.last_good("digits") is None
    store.activate(one)
    store.remember_good("digits")
    store.activate(two)
    assert str(store.active("digits") and store.active("digits").ref) == "digits@2"  # type: ignore[union-attr]  # checked by the `and`
    good = store.restore_last_good("digits")
    assert good is not None
    assert str(good.ref) == "digits@1"
    active = store.active("digits")
    assert active is not None
    assert active.ref == good.ref
    assert store.names() == ("digits",)


def test_going_back_without_a_last_good_one_leaves_no_model_active(store: Store) -> None:
    store.activate(add_slot(store, 1))
    assert store.restore_last_good("digits") is None
    assert store.active("digits") is None


def test_only_slots_without_a_link_are_collected(store: Store) -> None:
    slots = {version: add_slot(store, version) for version in (1, 2, 3, 4)}
    store.activate(slots[1])
    store.remember_good("digits")
    store.activate(slots[3])
    store.collect_slots("digits")
    assert [version for version, slot in slots.items() if slot.folder.exists()] == [1, 3]
    store.collect_slots("never seen")


def test_a_linked_slot_cannot_be_removed(store: Store) -> None:
    one, two = add_slot(store, 1), add_slot(store, 2)
    store.activate(one)
    store.remove_slot(one)
    store.remove_slot(two)
    assert one.folder.exists()
    assert not two.folder.exists()


def age(store: Store, version: int, seconds: float) -> str:
    sha256 = read_manifest(artifact(version)).payload.sha256
    os.utime(store.payload_path(sha256), (seconds, seconds))
    return sha256


def test_the_payloads_unused_for_longest_go_first(store: Store) -> None:
    for version in (1, 2, 3, 4):
        add_payload(store, content(version), artifact(version))
    shas = {version: age(store, version, 1000.0 + version) for version in (1, 2, 3, 4)}
    assert store.collect_payloads(2 * CHUNK + 100, frozenset()) == 2
    left = {version for version, sha in shas.items() if store.payload_path(sha).exists()}
    assert left == {3, 4}


def test_payloads_that_are_linked_or_to_be_kept_are_never_collected(store: Store) -> None:
    one, two = add_slot(store, 1), add_slot(store, 2)
    for version in (3, 4):
        add_payload(store, content(version), artifact(version))
    arriving = store.part_path(read_manifest(artifact(5)).payload.sha256)
    arriving.write_bytes(b"half")
    store.activate(one)
    store.remember_good("digits")
    store.activate(two)
    kept = frozenset(read_manifest(artifact(version)).payload.sha256 for version in (3, 5))
    assert store.collect_payloads(0, kept) == 1
    left = {path.name.split(".")[0] for path in arriving.parent.iterdir()}
    assert left == {read_manifest(artifact(version)).payload.sha256 for version in (1, 2, 3, 5)}


def test_nothing_is_collected_from_a_new_device(store: Store) -> None:
    assert store.collect_payloads(0, frozenset()) == 0
    assert store.names() == ()
    assert store.record_names() == ()


def test_a_journal_is_replaced_as_a_whole_and_half_written_ones_are_not_listed(
    store: Store, tmp_path: Path
) -> None:
    assert store.read_record("digits") is None
    store.write_record("digits", b"one")
    store.write_record("digits", b"two")
    (tmp_path / "records" / ".letters.json.new").write_bytes(b"half")
    assert store.read_record("digits") == b"two"
    assert store.record_names() == ("digits",)


def test_a_journal_that_cannot_be_read_is_a_storage_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: Path) -> bytes:
        raise OSError(5, "Input/output error")

    store.write_record("digits", b"one")
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(StorageError, match=r"digits\.json"):
        store.read_record("digits")
