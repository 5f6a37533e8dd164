"""The steps of one deployment, each durable before the next begins.

Each step: do what the state asks for, then write the journal, then report. Every step can be done
twice with the same effect, so a kill or a power cut at any instant is followed by doing it again.

The order that keeps one whole model active: slot complete → `last_good` = what was active →
`active` swapped by one rename. Going back is the same rename to `last_good`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

from trimtab_agent.hook_desk import HookDesk
from trimtab_agent.hook_rules import HookCall, HookPoint
from trimtab_agent.hooks import HookRunner
from trimtab_agent.in_use_watch import InUseWatch
from trimtab_agent.journal import Journal
from trimtab_agent.measure.jobs import Job, JobKind, JobResult
from trimtab_agent.probe_verdict import refuse_probe
from trimtab_agent.records import DeploymentRecord
from trimtab_agent.store import Slot
from trimtab_agent.tools import Tools, subject_of
from trimtab_protocol.errors import (
    ErrorCode,
    ProtocolError,
    RejectedError,
    StorageError,
    TrimtabError,
)
from trimtab_protocol.lifecycle import DeploymentEvent, DeploymentState
from trimtab_protocol.manifest import Manifest
from trimtab_protocol.signing import read_manifest, verify_manifest

log = logging.getLogger(__name__)

S, E = DeploymentState, DeploymentEvent

HEAVY_STATES = frozenset({S.ASSIGNED, S.FETCHING, S.VERIFYING, S.STAGED, S.PROBING, S.ACTIVATING})
"""States that need the bench to go on."""


class Steps:
    """What each state asks for.

    Args:
        tools: The agent's parts.
        journal: Where every step is written down.
        fail: Ends the deployment of a name; called for every failure of a step.
        desk: Asks hooks.
        watch: Knows the applications.
    """

    def __init__(
        self,
        tools: Tools,
        journal: Journal,
        fail: Callable[[str, TrimtabError], None],
        desk: HookDesk,
        watch: InUseWatch,
    ) -> None:
        self._tools = tools
        self._journal = journal
        self._fail = fail
        self._desk = desk
        self._watch = watch
        self._table: dict[DeploymentState, Callable[[str, DeploymentRecord], None]] = {
            S.ASSIGNED: self._accept,
            S.FETCHING: self._fetch,
            S.VERIFYING: self._verify,
            S.STAGED: self._start_probe,
            S.PROBING: self._start_probe,
            S.ACTIVATING: self._activate,
        }

    def do(self, name: str) -> None:
        """Do what the state of the deployment asks for; a failure ends it."""
        record = self._journal.deployment(name)
        step = self._table.get(record.state)
        if step is None:
            self._tools.bench.release(name)
            return
        try:
            step(name, record)
        except TrimtabError as error:
            self._fail(name, error)

    def restore(self, name: str, record: DeploymentRecord) -> None:
        """What is desired is here already: swap the link if need be, and be done."""
        slot = self._journal.slot(record)
        active = self._tools.store.active(name)
        if active is None or active.ref != slot.ref:
            self._tools.store.activate(slot)
        moved = record.moved(E.ACTIVATED).moved(E.PROVEN)
        moved = with_hook_due(moved, HookPoint.AFTER_ACTIVATE, self._tools.hooks)
        self._save_swapped(name, moved)

    def _move_on(self, name: str, record: DeploymentRecord) -> None:
        try:
            self._journal.save(name, record)
        except StorageError:
            # The step is done again when the bench is claimed again.
            self._tools.bench.release(name)
            raise
        self.do(name)

    def _accept(self, name: str, record: DeploymentRecord) -> None:
        manifest = verify_manifest(record.signed, self._tools.trusted_keys)
        if manifest.name != name:
            raise ProtocolError(f"the manifest of {manifest.ref()} was sent as {name}")
        record = self._journal.keep(name, record.with_artifact())
        expires_at = record.policy.expires_at
        if expires_at is not None and self._tools.clock.now() > expires_at:
            raise RejectedError("expired before it was begun", code=ErrorCode.REJECTED_EXPIRED)
        highest_version = self._journal.model(name).highest_version
        self._tools.admit(manifest, highest_version, self._journal.in_flight_sha256())
        self._move_on(name, record.moved(E.ACCEPT))

    def _fetch(self, name: str, record: DeploymentRecord) -> None:
        manifest = read_manifest(record.signed)
        if self._tools.store.has_payload(manifest.payload):
            self._move_on(name, record.moved(E.FETCHED))
            return
        self._tools.bench.fetch(
            manifest.payload,
            self._tools.window_settings(record.policy.max_fetch_bytes_per_s),
            (lambda: self._on_fetched(name, manifest), lambda error: self._fail(name, error)),
            self._tools.clock.monotonic_s(),
        )

    def _on_fetched(self, name: str, manifest: Manifest) -> None:
        try:
            self._tools.store.seal_part(manifest.payload)
        except TrimtabError as error:
            self._fail(name, error)
            return
        self._move_on(name, self._journal.deployment(name).moved(E.FETCHED))

    def _verify(self, name: str, record: DeploymentRecord) -> None:
        manifest = read_manifest(record.signed)
        self._tools.store.adopt_part(manifest.payload)
        self._tools.store.build_slot(record.signed)
        self._move_on(name, record.moved(E.VERIFIED))

    def _start_probe(self, name: str, record: DeploymentRecord) -> None:
        if self._journal.is_held(name):
            self._tools.bench.release(name)
            return
        if record.state is S.STAGED:
            record = record.moved(E.PROBE)
            self._journal.save(name, record)
        slot, active = self._journal.slot(record), self._tools.store.active(name)
        if record.probe is not None:
            self._judge_again(name, slot.manifest, record.probe)
            return
        job = Job(
            job_id=uuid.uuid4().hex,
            kind=JobKind.PROBE,
            subject=subject_of(slot.manifest, str(slot.model_path)),
            incumbent=subject_of(active.manifest, str(active.model_path)) if active else None,
            spec=record.policy.probe,
            settings=self._tools.settings.within(record.policy.max_probe_bytes),
            max_job_s=record.policy.max_probe_s,
        )
        self._tools.bench.run(job, lambda result: self._judge_probe(name, slot.manifest, result))

    def _judge_again(self, name: str, manifest: Manifest, result: JobResult) -> None:
        """What was found waits in memory for a journal that the disk refused: only write again."""
        try:
            self._judge_probe(name, manifest, result)
        except StorageError as error:
            log.error("%s: probed, and not written down yet: %s", name, error)

    def _judge_probe(self, name: str, manifest: Manifest, result: JobResult) -> None:
        record = self._journal.deployment(name).model_copy(update={"probe": result})
        self._journal.keep(name, record)
        device_class = self._tools.identity.device_class
        reason = refuse_probe(result, manifest, device_class, record.policy)
        if reason is not None:
            self._fail(name, reason)
            return
        self._ask_before_activation(name, record)

    def _ask_before_activation(self, name: str, record: DeploymentRecord) -> None:
        """The bench is free for others meanwhile; what was found stays, and is judged again."""
        if self._journal.is_held(name):
            self._tools.bench.release(name)
            return
        try:
            slot = self._journal.slot(record)
        except StorageError as error:
            self._fail(name, error)
            return
        answer = self._desk.ask(hook_call(name, record, HookPoint.BEFORE_ACTIVATE, slot))
        if answer is None:
            self._tools.bench.release(name)
        elif answer.error is not None:
            self._fail(name, answer.error)
        elif not self._tools.in_use.may_swap(name):
            self._tools.bench.release(name)
        else:
            self._move_on(name, self._watch.before_swap(name, record).moved(E.PROBED))

    def _activate(self, name: str, record: DeploymentRecord) -> None:
        self._tools.bench.release(name)
        if record.is_restore:
            self.restore(name, record)
            return
        slot, store = self._journal.slot(record), self._tools.store
        active = store.active(name)
        if active is None or active.ref != slot.ref:
            store.remember_good(name)
            store.activate(slot)
        ends_at = self._tools.clock.now() + record.policy.probation_s
        moved = record.moved(E.ACTIVATED).model_copy(update={"probation_ends_at": ends_at})
        moved = with_hook_due(moved, HookPoint.AFTER_ACTIVATE, self._tools.hooks)
        self._save_swapped(name, moved)

    def _save_swapped(self, name: str, record: DeploymentRecord) -> None:
        """The link is swapped: a journal that the disk refuses now is written at a later turn.

        Going back for it would swap to and fro for as long as the disk is full.
        """
        try:
            self._journal.save(name, record)
        except StorageError as error:
            log.error("%s: active, and not written down yet: %s", name, error)


def with_hook_due(
    record: DeploymentRecord, point: HookPoint, hooks: HookRunner
) -> DeploymentRecord:
    """The record, saying which hook has to be told; it lasts over a restart."""
    return record.model_copy(update={"hook_due": point if hooks.has(point) else None})


def hook_call(name: str, record: DeploymentRecord, point: HookPoint, slot: Slot | None) -> HookCall:
    """The question to a hook about the artifact of a slot."""
    return HookCall(
        point=point,
        deployment_id=record.deployment_id,
        name=name,
        artifact=str(slot.ref) if slot is not None else "",
        path=str(slot.model_path) if slot is not None else "",
    )
