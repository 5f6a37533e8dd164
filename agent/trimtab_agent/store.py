"""What is on the device's disk.

    payloads/{sha256}              a complete, verified model file
    payloads/{sha256}.part         one that is arriving
    slots/{name}/{version}-{sha}/  manifest.json (signed, as it came) and model.onnx | model.tflite
    models/{name}/active           link to the slot in use: the stable path for applications
    models/{name}/last_good        link to the slot to go back to
    records/{name}.json            the journal of the model's newest deployment

Rules:
    1. A slot is built whole before any link points to it, and is never changed afterwards.
    2. `active` is swapped by one rename. Before that, `last_good` points to what was active.
    3. Nothing that a link points to is ever collected.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from trimtab_agent.disk import Disk, storage_errors
from trimtab_protocol.base import parse_wire
from trimtab_protocol.errors import ErrorCode, ProtocolError, StorageError, TrustError
from trimtab_protocol.manifest import ArtifactRef, Manifest, Payload, SignedManifest
from trimtab_protocol.signing import read_manifest

READ_BYTES = 1024 * 1024
SHORT = 12
"""Digits of a digest in the name of a slot."""


def hash_file(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Slot:
    """A complete artifact on disk."""

    folder: Path
    signed: SignedManifest
    manifest: Manifest

    @property
    def ref(self) -> ArtifactRef:
        """Which artifact it is."""
        return self.manifest.ref()

    @property
    def model_path(self) -> Path:
        """The model file."""
        return self.folder / f"model.{self.manifest.payload.format.value}"

    def is_whole(self) -> bool:
        """Whether the model file is exactly what the manifest says; reads it all."""
        try:
            return hash_file(self.model_path) == self.manifest.payload.sha256
        except OSError:
            return False


class Store:
    """The agent's folder. All changes go through `disk`."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self._root = root
        self._disk = disk

    def part_path(self, sha256: str) -> Path:
        """Where a payload arrives."""
        return self._root / "payloads" / f"{sha256}.part"

    def payload_path(self, sha256: str) -> Path:
        """Where a complete payload lies."""
        return self._root / "payloads" / sha256

    def has_payload(self, payload: Payload) -> bool:
        """Whether the payload is there, by name and length; its digest was checked on the way in."""
        path = self.payload_path(payload.sha256)
        return path.is_file() and path.stat().st_size == payload.length_bytes

    def part_bytes(self, payload: Payload) -> int:
        """What a payload that is arriving takes already."""
        path = self.part_path(payload.sha256)
        return path.stat().st_size if path.is_file() else 0

    def seal_part(self, payload: Payload) -> None:
        """Make a part durable. Only then may the journal say that everything is fetched."""
        self._disk.sync_file(self.part_path(payload.sha256))

    def adopt_part(self, payload: Payload) -> Path:
        """Check a payload as a whole, and give a part that has arrived its final name.

        One that has its final name already is checked again: a disk may have changed it since.

        Raises:
            TrustError: Its length or digest is not the manifest's; the file is deleted.
            StorageError: The disk refuses.
        """
        path = self.payload_path(payload.sha256)
        is_adopted = self.has_payload(payload)
        source = path if is_adopted else self.part_path(payload.sha256)
        with storage_errors("read", source):
            found_bytes = source.stat().st_size if source.exists() else 0
        if found_bytes != payload.length_bytes:
            self._disk.remove(source)
            raise TrustError(
                f"payload has {found_bytes} bytes, its manifest says {payload.length_bytes}",
                code=ErrorCode.TRUST_PAYLOAD_LENGTH,
            )
        with storage_errors("read", source):
            found = hash_file(source)
        if found != payload.sha256:
            self._disk.remove(source)
            raise TrustError(
                f"payload has the digest {found[:12]}…, its manifest says {payload.sha256[:12]}…",
                code=ErrorCode.TRUST_PAYLOAD_DIGEST,
            )
        if not is_adopted:
            self._disk.move(source, path)
        return path

    def build_slot(self, signed: SignedManifest) -> Slot:
        """Lay out a slot from a payload that is complete. Safe to repeat."""
        manifest = read_manifest(signed)
        folder = self._slot_folder(manifest.ref())
        slot = Slot(folder, signed, manifest)
        if slot.model_path.exists() and not slot.is_whole():
            self._disk.remove(slot.model_path)  # damaged since an earlier deployment left it
        self._disk.link_file(self.payload_path(manifest.payload.sha256), slot.model_path)
        self._disk.write_file(folder / "manifest.json", signed.model_dump_json().encode())
        return slot

    def find_slot(self, ref: ArtifactRef) -> Slot | None:
        """The slot of an artifact, if it is complete."""
        return self._read_slot(self._slot_folder(ref))

    def active(self, name: str) -> Slot | None:
        """What is in use."""
        return self._read_slot(self._link(name, "active"))

    def last_good(self, name: str) -> Slot | None:
        """What to go back to."""
        return self._read_slot(self._link(name, "last_good"))

    def names(self) -> tuple[str, ...]:
        """Model names that have or had an active slot, sorted."""
        folder = self._root / "models"
        return tuple(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else ()

    def remember_good(self, name: str) -> None:
        """Point `last_good` to what is active now; before an activation."""
        current = self.active(name)
        if current is not None:
            self._disk.swap_link(self._link(name, "last_good"), current.folder.resolve())

    def activate(self, slot: Slot) -> None:
        """Swap the active link to a slot: one rename."""
        self._disk.swap_link(self._link(slot.manifest.name, "active"), slot.folder.resolve())

    def forget_last_good(self, name: str) -> None:
        """Have no slot to go back to; for one that is damaged."""
        self._disk.remove(self._link(name, "last_good"))

    def restore_last_good(self, name: str) -> Slot | None:
        """Go back to the last good slot; without one, no model is active afterwards."""
        good = self.last_good(name)
        if good is None:
            self._disk.remove_link(self._link(name, "active"))
            return None
        self._disk.swap_link(self._link(name, "active"), good.folder.resolve())
        return good

    def read_record(self, name: str) -> bytes | None:
        """The journal of a model name, if there is one."""
        path = self._record_path(name)
        with storage_errors("read", path):
            return path.read_bytes() if path.is_file() else None

    def write_record(self, name: str, content: bytes) -> None:
        """Replace the journal of a model name."""
        self._disk.write_file(self._record_path(name), content)

    def record_names(self) -> tuple[str, ...]:
        """Model names that have a journal, sorted."""
        folder = self._root / "records"
        return tuple(sorted(path.stem for path in folder.glob("[!.]*.json")))

    def remove_slot(self, slot: Slot) -> None:
        """Remove a slot that no link points to."""
        linked = {s.folder.resolve() for s in self._linked(slot.manifest.name)}
        if slot.folder.resolve() not in linked:
            self._disk.remove(slot.folder)

    def collect_slots(self, name: str) -> None:
        """Remove every slot of a name that no link points to; after a commit."""
        linked = {slot.folder.resolve() for slot in self._linked(name)}
        folder = self._root / "slots" / name
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.resolve() not in linked:
                self._disk.remove(path)

    def collect_payloads(self, max_bytes: int, keep_sha256: frozenset[str]) -> int:
        """Delete the payloads that were not used for the longest time, until `max_bytes` remain.

        Args:
            max_bytes: What may stay, beside the payloads of linked slots and those to keep.
            keep_sha256: Payloads that are being fetched or tried.

        Returns:
            How many files were deleted.
        """
        folder = self._root / "payloads"
        kept = keep_sha256 | self._linked_sha256()
        loose = [path for path in folder.glob("*") if path.name.split(".")[0] not in kept]
        loose.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        total_bytes = deleted = 0
        for path in loose:
            total_bytes += path.stat().st_size
            if total_bytes > max_bytes:
                self._disk.remove(path)
                deleted += 1
        return deleted

    def used_bytes(self) -> int:
        """What the store takes: each file once, however many names it has, and a part as a whole."""
        sizes: dict[int, int] = {}
        for folder, _, names in os.walk(self._root):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # a child's files come and go
                    status = Path(folder, name).lstat()
                    sizes[status.st_ino] = status.st_size
        return sum(sizes.values())

    def make_room(self, wanted_bytes: int, keep_sha256: frozenset[str]) -> int:
        """Delete what nothing uses, the longest unused first, until so much was freed.

        Args:
            wanted_bytes: Stop when this much is freed; less is freed if there is no more.
            keep_sha256: Payloads that are being fetched or tried.

        Returns:
            The bytes that were freed.

        Raises:
            StorageError: The disk refuses, or cannot tell what is in use.
        """
        before_bytes = used_bytes = self.used_bytes()
        for paths in self._loose(keep_sha256):
            if before_bytes - used_bytes >= wanted_bytes:
                break
            for path in paths:
                self._disk.remove(path)
            used_bytes = self.used_bytes()
        return before_bytes - used_bytes

    def _loose(self, keep_sha256: frozenset[str]) -> list[list[Path]]:
        """Payloads and slots that nothing uses, grouped by what they share, the oldest first."""
        kept_short = {sha256[:SHORT] for sha256 in keep_sha256 | self._linked_sha256()}
        groups: dict[str, list[Path]] = {}
        for path in (self._root / "payloads").glob("[!.]*"):
            groups.setdefault(path.name[:SHORT], []).append(path)
        for path in (self._root / "slots").glob("*/*"):
            groups.setdefault(path.name[-SHORT:], []).append(path)
        loose = [paths for short, paths in groups.items() if short not in kept_short]
        return sorted(loose, key=lambda paths: max(path.stat().st_mtime for path in paths))

    def _linked_sha256(self) -> frozenset[str]:
        return frozenset(
            slot.manifest.payload.sha256 for name in self.names() for slot in self._linked(name)
        )

    def _linked(self, name: str) -> list[Slot]:
        return [slot for slot in (self.active(name), self.last_good(name)) if slot is not None]

    def _slot_folder(self, ref: ArtifactRef) -> Path:
        return self._root / "slots" / ref.name / f"{ref.version}-{ref.sha256[:SHORT]}"

    def _link(self, name: str, which: str) -> Path:
        return self._root / "models" / name / which

    def _record_path(self, name: str) -> Path:
        return self._root / "records" / f"{name}.json"

    def _read_slot(self, folder: Path) -> Slot | None:
        path = folder / "manifest.json"
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error}") from error
        try:
            signed = parse_wire(SignedManifest, text, what=f"manifest in {folder}")
            manifest = read_manifest(signed)
        except ProtocolError as error:
            raise StorageError(error.message, code=ErrorCode.STORAGE_CORRUPT) from error
        return Slot(folder, signed, manifest)
