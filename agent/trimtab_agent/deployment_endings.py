"""How a deployment ends; every ending has its one place.

fail         it never was active: nothing to repair
roll back    it is or may be active: `active` swings back to `last_good`, one rename
commit       its probation is over and it was checked once more
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from trimtab_agent.deployment_steps import hook_call, with_hook_due
from trimtab_agent.hook_desk import Answer, HookDesk
from trimtab_agent.hook_rules import HookPoint
from trimtab_agent.journal import Journal
from trimtab_agent.records import DeploymentRecord
from trimtab_agent.store import Slot
from trimtab_agent.tools import Tools
from trimtab_protocol.errors import ErrorCode, StorageError, TrimtabError
from trimtab_protocol.lifecycle import DeploymentEvent, DeploymentState, is_final

log = logging.getLogger(__name__)

S, E = DeploymentState, DeploymentEvent


class Endings:
    """See the module.

    Args:
        tools: The agent's parts.
        journal: Where every step is written down.
        desk: Asks hooks.
        on_ended: Called with the model name of a deployment that has ended, for whoever waited.
        max_payload_cache_bytes: What may stay on disk of payloads that nothing uses.

    Raises:
        StorageError: From every ending, when the disk refuses; it is gone on with at a later turn.
    """

    def __init__(
        self,
        tools: Tools,
        journal: Journal,
        desk: HookDesk,
        on_ended: Callable[[str], None],
        max_payload_cache_bytes: int,
    ) -> None:
        self._tools = tools
        self._journal = journal
        self._desk = desk
        self._on_ended = on_ended
        self._max_payload_cache_bytes = max_payload_cache_bytes

    def fail(self, name: str, error: TrimtabError) -> None:
        """End a deployment that is not active; one that is goes back."""
        record = self._journal.deployment(name)
        self._tools.bench.release(name)
        if record.state in (S.ACTIVATING, S.PROBATION):
            self.roll_back(name, error)
            return
        if is_final(record.state):
            return
        what = record.artifact or record.deployment_id
        log.warning("%s: %s refused: [%s] %s", name, what, error.code.value, error)
        self._journal.save(name, record.moved(E.FAIL, error))
        slot = self._tools.store.find_slot(record.artifact) if record.artifact else None
        if slot is not None:
            self._tools.store.remove_slot(slot)
        self._on_ended(name)

    def roll_back(self, name: str, error: TrimtabError, *, next_desire: bool = True) -> None:
        """End a deployment by going back, unless its artifact never became active.

        The reason is noted: first, in probation, for after a kill in between nothing else would keep
        what is active no more from being committed; else when `active` has swung back. A record
        that has a reason and is not final goes back, whatever happens.
        """
        before = self._journal.deployment(name)
        record = before
        if before.state is S.PROBATION:  # what is still activating may yet get there
            record = self._journal.note(name, before.because(error))
        self._tools.bench.release(name)
        active = self._active_if_readable(name)
        if active is None or active.ref == record.artifact:
            active = self._tools.store.restore_last_good(name)
            record = self._journal.note(name, record.because(error))
        back = active.ref if active is not None else "no model"
        if before.error_code is None:
            log.warning("%s: back to %s: [%s] %s", name, back, error.code.value, error)
        moved = record.moved(E.ROLL_BACK, error)
        moved = with_hook_due(moved, HookPoint.AFTER_ROLLBACK, self._tools.hooks)
        self._journal.save(name, moved)
        self.ask_due_hook(name, moved)  # now, for the next desire takes the place of this record
        if next_desire:
            self._on_ended(name)

    def commit(self, name: str) -> None:
        """End a deployment in probation as the incumbent, if it is what is active."""
        record = self._journal.deployment(name)
        active = self._active_if_readable(name)
        if active is None or active.ref != record.artifact:  # a cut, and going back was not written
            reason = f"{record.artifact} is in probation and not active any more"
            self.roll_back(name, StorageError(reason, code=ErrorCode.STORAGE_CORRUPT))
            return
        self._journal.raise_highest_version(name, active.ref.version)
        self._journal.save(name, record.moved(E.PROVEN))
        try:
            self._tools.store.collect_slots(name)
            in_flight = self._journal.in_flight_sha256()
            self._tools.store.collect_payloads(self._max_payload_cache_bytes, in_flight)
        finally:  # a disk that refuses to delete must not keep a newer desire waiting
            self._on_ended(name)

    def ask_due_hook(self, name: str, record: DeploymentRecord) -> Answer | None:
        """What a hook says that has still to be told of a deployment; None while it says nothing."""
        if record.hook_due is None:
            return None
        active = self._active_if_readable(name)
        return self._desk.ask(hook_call(name, record, record.hook_due, active))

    def _active_if_readable(self, name: str) -> Slot | None:
        try:
            return self._tools.store.active(name)
        except StorageError:
            return None
