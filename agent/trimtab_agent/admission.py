"""Whether this device may take an artifact at all: pure, before a byte is fetched.

Order: is it newer than what was committed (trust), is it for this class, does the runtime exist in
a good enough version, is there memory for it, and last is there room:
whoever asks may make some and ask again. The signature was checked before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from trimtab_protocol.errors import ErrorCode, RejectedError, TrustError
from trimtab_protocol.manifest import Manifest, RuntimeName


@dataclass(frozen=True)
class DeviceFacts:
    """What admission needs to know of the device.

    Args:
        device_class: Its class.
        runtimes: Installed version per runtime.
        memory_total_bytes: None if it cannot be read; then memory is not judged.
        free_disk_bytes: What is free beyond the reserve.
        quota_bytes: What the store may take in all, 0 for no quota.
        used_bytes: What it takes now, without what has arrived of the artifact in question.
        freed_bytes: What was deleted just now to make room.
        highest_version: Highest version of this model name that was ever committed here, 0 for none.
    """

    device_class: str
    runtimes: dict[RuntimeName, str]
    memory_total_bytes: int | None
    free_disk_bytes: int
    highest_version: int
    quota_bytes: int = 0
    used_bytes: int = 0
    freed_bytes: int = 0

    def room_bytes(self) -> int:
        """What may still be written: what is free, within the quota."""
        if not self.quota_bytes:
            return self.free_disk_bytes
        return min(self.free_disk_bytes, self.quota_bytes - self.used_bytes)


def admit(manifest: Manifest, facts: DeviceFacts, needed_bytes: int) -> None:
    """Refuse an artifact that this device must not or cannot run.

    Args:
        manifest: Signed and verified.
        facts: The device.
        needed_bytes: What has still to be fetched.

    Raises:
        TrustError: `trust.version`, older than what was committed here.
        RejectedError: Class, runtime, memory or disk, with what was expected and what was found.
    """
    if manifest.version < facts.highest_version:
        raise TrustError(
            f"{manifest.ref()} is older than version {facts.highest_version}, which was committed here",
            code=ErrorCode.TRUST_VERSION,
        )
    _check_class(manifest, facts)
    _check_runtime(manifest, facts)
    memory = facts.memory_total_bytes
    if memory is not None and manifest.requirements.min_memory_bytes > memory:
        raise RejectedError(
            f"needs {manifest.requirements.min_memory_bytes} bytes of memory, this device has {memory}",
            code=ErrorCode.REJECTED_MEMORY,
        )
    if needed_bytes > facts.room_bytes():
        raise RejectedError(_describe_room(facts, needed_bytes), code=ErrorCode.REJECTED_DISK)


def _describe_room(facts: DeviceFacts, needed_bytes: int) -> str:
    text = (
        f"needs {needed_bytes} bytes of disk, {facts.free_disk_bytes} are free beyond the reserve"
    )
    if facts.quota_bytes:
        text += f", and the store has {facts.used_bytes} of its quota of {facts.quota_bytes}"
    return (
        f"{text}; {facts.freed_bytes} bytes that nothing uses were deleted, "
        "the rest is active, last good or under way"
    )


def _check_class(manifest: Manifest, facts: DeviceFacts) -> None:
    classes = manifest.requirements.device_classes
    if classes and facts.device_class not in classes:
        raise RejectedError(
            f"is for the classes {', '.join(classes)}; this device is of class {facts.device_class}",
            code=ErrorCode.REJECTED_DEVICE_CLASS,
        )


def _check_runtime(manifest: Manifest, facts: DeviceFacts) -> None:
    wanted = manifest.requirements.runtime
    found = facts.runtimes.get(wanted)
    if found is None:
        raise RejectedError(
            f"needs the runtime {wanted.value}, which is not installed here",
            code=ErrorCode.REJECTED_RUNTIME,
        )
    minimum = manifest.requirements.min_runtime_version
    if minimum is not None and _release(found) < _release(minimum):
        raise RejectedError(
            f"needs {wanted.value} {minimum} or newer, found {found}",
            code=ErrorCode.REJECTED_RUNTIME,
        )


def _release(version: str) -> tuple[int, ...]:
    """Major, minor, patch; a part that is not said is 0, so that 1.23 is 1.23.0."""
    parts = [int(part) for part in re.findall(r"\d+", version)[:3]]
    return tuple(parts + [0] * (3 - len(parts)))
