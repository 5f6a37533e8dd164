"""What deployments and trials share: the parts of this agent, put together by `bootstrap`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from trimtab_agent.admission import DeviceFacts, admit
from trimtab_agent.config import FetchSettings
from trimtab_agent.disk import Disk
from trimtab_agent.hooks import HookRunner, NoHooks
from trimtab_agent.in_use import InUse, NobodyAsks
from trimtab_agent.measure.jobs import Settings, Subject
from trimtab_agent.outbox import Outbox
from trimtab_agent.store import Store
from trimtab_agent.window import WindowSettings
from trimtab_agent.workbench import Workbench
from trimtab_protocol.errors import ErrorCode, RejectedError
from trimtab_protocol.manifest import Manifest
from trimtab_protocol.messages import RuntimeFact


@dataclass(frozen=True)
class Clock:
    """The two clocks; tests pass their own.

    Args:
        now: Seconds since 1970, may jump.
        monotonic_s: Never goes back.
    """

    now: Callable[[], float] = time.time
    monotonic_s: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class Identity:
    """What this device is, as far as decisions need it."""

    device_class: str
    runtimes: tuple[RuntimeFact, ...]
    memory_total_bytes: int | None


@dataclass(frozen=True)
class Tools:
    """The parts of an agent that act."""

    store: Store
    disk: Disk
    outbox: Outbox
    bench: Workbench
    settings: Settings
    fetch: FetchSettings
    identity: Identity
    trusted_keys: dict[str, bytes]
    free_disk_bytes: Callable[[], int]
    clock: Clock = field(default_factory=Clock)
    max_store_bytes: int = 0
    hooks: HookRunner = field(default_factory=NoHooks)
    in_use: InUse = field(default_factory=NobodyAsks)

    def admit(
        self, manifest: Manifest, highest_version: int, in_flight_sha256: frozenset[str]
    ) -> None:
        """Refuse what must not or cannot run here; what nothing uses gives way to what is admitted.

        Args:
            manifest: Signed and verified.
            highest_version: Highest version of the name that was committed here, 0 for any.
            in_flight_sha256: Payloads that deployments still need.

        Raises:
            TrustError, RejectedError: See `admission.admit`.
            StorageError: The disk does not let go of what nothing uses.
        """
        facts = self.facts(manifest, highest_version)
        needed_bytes = self.lacking_bytes(manifest)
        try:
            admit(manifest, facts, needed_bytes)
        except RejectedError as error:
            if error.code is not ErrorCode.REJECTED_DISK:
                raise
            keep = in_flight_sha256 | {manifest.payload.sha256}
            freed = self.store.make_room(needed_bytes - facts.room_bytes(), keep)
            facts = replace(self.facts(manifest, highest_version), freed_bytes=freed)
            admit(manifest, facts, needed_bytes)

    def facts(self, manifest: Manifest, highest_version: int) -> DeviceFacts:
        """What admission judges by."""
        used_bytes = 0
        if self.max_store_bytes:
            used_bytes = self.store.used_bytes() - self.store.part_bytes(manifest.payload)
        return DeviceFacts(
            device_class=self.identity.device_class,
            runtimes={row.name: row.version for row in self.identity.runtimes},
            memory_total_bytes=self.identity.memory_total_bytes,
            free_disk_bytes=self.free_disk_bytes(),
            highest_version=highest_version,
            quota_bytes=self.max_store_bytes,
            used_bytes=used_bytes,
        )

    def lacking_bytes(self, manifest: Manifest) -> int:
        """What has still to be fetched of a payload, at most."""
        return 0 if self.store.has_payload(manifest.payload) else manifest.payload.length_bytes

    def window_settings(self, max_bytes_per_s: int | None) -> WindowSettings:
        """The window for one download."""
        return WindowSettings(**self.fetch.model_dump(), max_bytes_per_s=max_bytes_per_s)


def subject_of(manifest: Manifest, model_path: str) -> Subject:
    """A model file with what its manifest says about it."""
    return Subject(
        artifact=manifest.ref(),
        runtime=manifest.requirements.runtime,
        model_path=model_path,
        size_bytes=manifest.payload.length_bytes,
        golden=manifest.golden,
    )
