"""What is active has to prove itself: in its applications, and once more in a child at the end."""

from __future__ import annotations

import logging
import uuid

from trimtab_agent.deployment_endings import Endings
from trimtab_agent.in_use_watch import InUseWatch
from trimtab_agent.journal import Journal
from trimtab_agent.measure.jobs import Job, JobKind, JobResult
from trimtab_agent.records import DeploymentRecord
from trimtab_agent.tools import Tools, subject_of
from trimtab_protocol.errors import StorageError, error_from_code
from trimtab_protocol.lifecycle import DeploymentState, is_final

log = logging.getLogger(__name__)


class Probation:
    """See the module.

    Args:
        tools: The agent's parts.
        journal: Where every step is written down.
        watch: Knows the applications.
        endings: Commit and going back.
    """

    def __init__(self, tools: Tools, journal: Journal, watch: InUseWatch, endings: Endings) -> None:
        self._tools = tools
        self._journal = journal
        self._watch = watch
        self._endings = endings

    def is_given_up(self, name: str) -> bool:
        """Go back at once, whatever else is under way, if that was begun or applications say so.

        Raises:
            StorageError: The disk refuses; it is gone on with at a later turn.
        """
        record = self._journal.newest(name)
        if record is None or is_final(record.state):
            return False
        error = record.reason()
        if error is None and record.state is DeploymentState.PROBATION:
            error = self._watch.look(name, record).error
        if error is None:
            return False
        self._endings.roll_back(name, error)
        return True

    def go_on(self, name: str, record: DeploymentRecord) -> None:
        """When the time is over and everybody was heard, check the active file once more."""
        now = self._tools.clock.now()
        ends_at = record.probation_ends_at if record.probation_ends_at is not None else now
        # A clock that jumped back must not keep a deployment in probation for ever.
        is_waiting = now < ends_at <= now + record.policy.probation_s
        if is_waiting or self._tools.bench.owner is not None:
            return
        if self._watch.look(name, record).is_open:
            return
        try:
            slot = self._journal.slot(record)
        except StorageError as error:
            self._endings.fail(name, error)
            return
        job = Job(
            job_id=uuid.uuid4().hex,
            kind=JobKind.CHECK,
            subject=subject_of(slot.manifest, str(slot.model_path)),
            settings=self._tools.settings,
        )
        self._tools.bench.claim(name)
        try:
            self._tools.bench.run(job, lambda result: self._end(name, result))
        except StorageError as error:  # says nothing about the model: tried again at a later turn
            self._tools.bench.release(name)
            log.error("%s: the check at the end of probation waits: %s", name, error)

    def _end(self, name: str, result: JobResult) -> None:
        self._tools.bench.release(name)
        if result.error_code is not None:
            self._endings.roll_back(name, error_from_code(result.error_code, result.detail))
        elif not self.is_given_up(name):
            self._endings.commit(name)
