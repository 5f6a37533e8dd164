"""All deployments of a device: which one is begun, gone on with, ended or resumed.

What one deployment does between its beginning and its end is in `deployment_steps`, how its probation
goes in `deployment_probation`, and how it ends in `deployment_endings`. Here it is decided what is
begun (by `reconcile`).
"""

from __future__ import annotations

import logging

from trimtab_agent.deployment_endings import Endings
from trimtab_agent.deployment_probation import Probation
from trimtab_agent.deployment_steps import HEAVY_STATES, Steps
from trimtab_agent.healing import heal_links
from trimtab_agent.hook_desk import HookDesk
from trimtab_agent.hook_rules import HookResult
from trimtab_agent.in_use_watch import InUseWatch
from trimtab_agent.journal import Journal
from trimtab_agent.reconcile import Step, reconcile
from trimtab_agent.records import DeploymentRecord
from trimtab_agent.tools import Tools
from trimtab_protocol.errors import (
    ErrorCode,
    ModelError,
    RejectedError,
    StorageError,
    TrimtabError,
)
from trimtab_protocol.lifecycle import (
    DeploymentEvent,
    DeploymentState,
    is_final,
    may_supersede,
)
from trimtab_protocol.manifest import ArtifactRef
from trimtab_protocol.messages import Desired, DesiredModel
from trimtab_protocol.signing import verify_manifest

log = logging.getLogger(__name__)

S, E = DeploymentState, DeploymentEvent


class Deployments:
    """All model names of this device.

    Args:
        tools: The agent's parts.
        journal: Where every step is written down.
        max_payload_cache_bytes: What may stay on disk of payloads that nothing uses.
    """

    def __init__(self, tools: Tools, journal: Journal, max_payload_cache_bytes: int) -> None:
        self._tools = tools
        self._journal = journal
        self._desired: dict[str, DesiredModel] = {}
        self._held: set[str] = set()
        self._unreconciled: dict[str, str] = {}  # model name -> why it could not be taken up yet
        self._refused: dict[str, str] = {}  # model name -> why the disk kept it from going on
        self._desk = HookDesk(tools.hooks, tools.clock.monotonic_s)
        watch = InUseWatch(tools, journal)
        self._endings = Endings(
            tools, journal, self._desk, self._take_up_waiting, max_payload_cache_bytes
        )
        self._steps = Steps(tools, journal, self._endings.fail, self._desk, watch)
        self._probation = Probation(tools, journal, watch, self._endings)

    def resume(self) -> None:
        """After a start: read the journals, heal the links, count starts of what was running."""
        self._journal.load()
        for name in self._tools.store.names():
            heal_links(self._tools.store, name)
        for name in self._journal.names():
            record = self._journal.newest(name)
            if record is not None:
                self._resume_one(name, record)

    def take(self, desired: Desired) -> None:
        """A desired state arrived: reconcile every model name in it, cancel what it left out."""
        self._desired = dict(desired.models)
        self._unreconciled = dict.fromkeys([*self._desired, *self._journal.names()], "")
        self._take_up_unreconciled()

    def work(self) -> None:
        """Go on with whatever can go on now; called after every event."""
        self._take_up_unreconciled()
        self._journal.report_overdue()
        self._desk.work()
        self._notice_holds()
        for name in self._journal.names():
            try:
                self._go_on(name)
            except StorageError as error:  # the next turn tries again, and nobody else waits for it
                if error.message != self._refused.get(name):
                    log.error("%s: waits for the disk: %s", name, error)
                self._refused[name] = error.message
            else:
                self._refused.pop(name, None)

    def has_heavy_work(self) -> bool:
        """Whether a deployment waits for the bench; trials give way."""
        records = ((name, self._journal.newest(name)) for name in self._journal.names())
        return any(row is not None and self._is_heavy(name, row) for name, row in records)

    def on_hook_finished(self, result: HookResult) -> None:
        """A hook ended; whoever waits for its answer asks again at this turn."""
        self._desk.on_finished(result)

    def _go_on(self, name: str) -> None:
        if self._probation.is_given_up(name):
            return
        record = self._journal.newest(name)
        if record is None:
            return
        if record.hook_due is not None:
            self._ask_due_hook(name, record)
        elif self._is_heavy(name, record) and self._tools.bench.owner is None:
            self._tools.bench.claim(name)
            self._steps.do(name)
        elif record.state is S.PROBATION:
            self._probation.go_on(name, record)

    def _is_heavy(self, name: str, record: DeploymentRecord) -> bool:
        """Whether it could go on if it had the bench."""
        is_waiting = self._desk.is_open(name, record.deployment_id) or self._journal.is_held(name)
        return record.state in HEAVY_STATES and not is_waiting

    def _notice_holds(self) -> None:
        """Say once that something waits for applications, and once that it does no longer."""
        held = {name for name in self._journal.names() if self._journal.is_held(name)}
        for name in sorted(held ^ self._held):
            log.info("%s: updates are %s", name, "held" if name in held else "held no longer")
            self._journal.revision += 1
        self._held = held

    # Deciding what to begin

    def _take_up_unreconciled(self) -> None:
        """A name whose journal the disk refuses now must neither be lost nor keep others waiting."""
        for name in list(self._unreconciled):
            self._take_up(name)

    def _take_up(self, name: str) -> None:
        try:
            if name in self._desired:
                self._reconcile(name)
            else:
                self._cancel(name)
        except StorageError as error:
            if error.message != self._unreconciled.get(name):
                log.error("%s: not taken up yet: %s", name, error)
            self._unreconciled[name] = error.message
        else:
            self._unreconciled.pop(name, None)

    def _take_up_waiting(self, name: str) -> None:
        """A desire that came while nothing could interrupt is looked at again."""
        wanted = self._desired.get(name)
        if (
            wanted is not None
            and wanted.deployment_id != self._journal.deployment(name).deployment_id
        ):
            self._take_up(name)

    def _cancel(self, name: str) -> None:
        """A deployment that is no longer desired ends; what was committed stays. [P-4.9]"""
        record = self._journal.newest(name)
        if record is None or is_final(record.state):
            return
        if may_supersede(record.state):
            self._supersede(name, "no longer desired")
        else:
            reason = RejectedError("no longer desired", code=ErrorCode.REJECTED_SUPERSEDED)
            self._endings.roll_back(name, reason, next_desire=False)

    def _reconcile(self, name: str) -> None:
        wanted = self._desired[name]
        standing = self._journal.standing(name)
        decision = reconcile(standing, wanted.deployment_id, self._trusted_ref(wanted))
        log.info("%s: %s is wanted: %s", name, wanted.deployment_id, decision.step.value)
        if decision.step in (Step.NOTHING, Step.WAIT):
            return
        if decision.step is Step.ROLL_BACK:
            reason = RejectedError(
                "the control plane went back", code=ErrorCode.REJECTED_SUPERSEDED
            )
            self._endings.roll_back(name, reason, next_desire=False)
        elif decision.is_superseding:
            self._supersede(name, f"superseded by {wanted.deployment_id}")
        record = DeploymentRecord(
            deployment_id=wanted.deployment_id, signed=wanted.signed, policy=wanted.policy
        )
        if decision.step is Step.BEGIN:
            self._journal.save(name, record)
        else:
            self._begin_restore(name, record.with_artifact())

    def _trusted_ref(self, wanted: DesiredModel) -> ArtifactRef | None:
        try:
            return verify_manifest(wanted.signed, self._tools.trusted_keys).ref()
        except TrimtabError:
            return None  # it fails with this reason when it is begun

    def _supersede(self, name: str, why: str) -> None:
        reason = RejectedError(why, code=ErrorCode.REJECTED_SUPERSEDED)
        self._tools.bench.release(name)
        self._journal.save(name, self._journal.deployment(name).moved(E.SUPERSEDE, reason))

    def _begin_restore(self, name: str, record: DeploymentRecord) -> None:
        record = record.model_copy(update={"is_restore": True, "state": S.ACTIVATING})
        self._journal.save(name, record)
        try:
            self._steps.restore(name, record)
        except TrimtabError as error:
            self._endings.fail(name, error)

    # Hooks

    def _ask_due_hook(self, name: str, record: DeploymentRecord) -> None:
        """Only a no in probation has a consequence; what is final stays so."""
        answer = self._endings.ask_due_hook(name, record)
        if answer is None:
            return
        if answer.error is not None and record.state is S.PROBATION:
            self._endings.roll_back(name, answer.error)
            return
        if answer.error is not None:
            log.warning("%s: %s; nothing follows from it", name, answer.error)
        self._journal.save(name, record.model_copy(update={"hook_due": None}))

    # After a start

    def _resume_one(self, name: str, record: DeploymentRecord) -> None:
        if is_final(record.state):
            self._journal.report(name, record)
            return
        if record.reason() is not None:
            return  # it was going back; `work` goes on with that
        record = record.model_copy(update={"starts": record.starts + 1})
        self._journal.save(name, record)
        if record.starts >= record.policy.max_starts and record.state in (S.PROBING, S.PROBATION):
            reason = f"{record.starts} starts of the agent while {record.state.value}"
            self._endings.fail(name, ModelError(reason, code=ErrorCode.MODEL_CRASH))
