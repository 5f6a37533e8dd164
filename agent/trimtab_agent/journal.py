"""The journals of all model names, in memory and on disk, and the reports that follow from them.

Whatever changes a deployment goes through `save`: journal first, then the report into the outbox,
then the retained state. After a kill between the two the report is put again at the next start. A
report that the disk refuses waits in memory, for a failure to report fails nothing. [P-4.6]
"""

from __future__ import annotations

import contextlib
import logging

from trimtab_agent.reconcile import Standing
from trimtab_agent.records import DeploymentRecord, ModelRecord, to_report, to_status
from trimtab_agent.store import Slot
from trimtab_agent.tools import Tools
from trimtab_protocol.base import parse_wire
from trimtab_protocol.errors import ErrorCode, ProtocolError, StorageError
from trimtab_protocol.lifecycle import DeploymentState, is_final
from trimtab_protocol.messages import DeploymentReport, DeploymentStatus, ModelStatus

log = logging.getLogger(__name__)

HELD_STATES = frozenset({DeploymentState.STAGED, DeploymentState.PROBING})
"""Whoever holds updates keeps a deployment from probing and from activation, and from nothing else."""


class Journal:
    """See the module.

    Args:
        tools: The agent's parts.

    Attributes:
        revision: Grows with every change, so that whoever publishes the state sees it.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self.revision = 0
        self._models: dict[str, ModelRecord] = {}
        self._overdue: list[DeploymentReport] = []

    def load(self) -> None:
        """Read what is on disk; an unreadable journal is passed over, its active model stays."""
        for name in self._tools.store.record_names():
            content = self._tools.store.read_record(name)
            try:
                self._models[name] = parse_wire(
                    ModelRecord, content or b"", what=f"journal of {name}"
                )
            except ProtocolError as error:
                log.error("%s; what is active stays active", error.message)

    def names(self) -> list[str]:
        """Model names that have a journal."""
        return list(self._models)

    def model(self, name: str) -> ModelRecord:
        """All that is remembered of a name."""
        return self._models.get(name, ModelRecord(name=name))

    def newest(self, name: str) -> DeploymentRecord | None:
        """The newest deployment of a name."""
        return self.model(name).deployment

    def is_held(self, name: str) -> bool:
        """Whether applications keep the newest deployment of a name waiting. [P-5.13]"""
        record = self.newest(name)
        is_at_gate = record is not None and record.state in HELD_STATES
        return is_at_gate and self._tools.in_use.held_until_s(name) is not None

    def in_flight_sha256(self) -> frozenset[str]:
        """Payloads of deployments that are under way; they are not collected."""
        records = (self.newest(name) for name in self.names())
        return frozenset(
            row.artifact.sha256
            for row in records
            if row is not None and row.artifact is not None and not is_final(row.state)
        )

    def deployment(self, name: str) -> DeploymentRecord:
        """The newest deployment of a name that must have one.

        Raises:
            StorageError: It has none.
        """
        record = self.newest(name)
        if record is None:
            raise StorageError(f"{name} has no deployment", code=ErrorCode.STORAGE_CORRUPT)
        return record

    def slot(self, record: DeploymentRecord) -> Slot:
        """The slot of a deployment that is past `verifying`.

        Raises:
            StorageError: It is gone.
        """
        artifact = record.artifact
        slot = self._tools.store.find_slot(artifact) if artifact is not None else None
        if slot is None:
            raise StorageError(f"slot of {artifact} is gone", code=ErrorCode.STORAGE_CORRUPT)
        return slot

    def standing(self, name: str) -> Standing:
        """What reconciling judges by."""
        active, good = self._tools.store.active(name), self._tools.store.last_good(name)
        record = self.newest(name)
        return Standing(
            active=active.ref if active else None,
            last_good=good.ref if good else None,
            deployment_id=record.deployment_id if record else None,
            state=record.state if record else None,
        )

    def keep(self, name: str, record: DeploymentRecord) -> DeploymentRecord:
        """Remember in memory only; the next `save` makes it durable."""
        self._models[name] = self.model(name).model_copy(update={"deployment": record})
        return record

    def save(self, name: str, record: DeploymentRecord) -> None:
        """Make a step durable, and report it.

        Raises:
            StorageError: The disk refuses; nothing has changed.
        """
        model = self.model(name).model_copy(update={"deployment": record})
        self._write(model)
        self._models[name] = model
        log.info("%s: %s is %s", name, record.artifact or record.deployment_id, record.state.value)
        self.report(name, record)

    def note(self, name: str, record: DeploymentRecord) -> DeploymentRecord:
        """Remember, durably if the disk takes it, and report nothing; known already is done already."""
        if record == self.newest(name):
            return record
        self.keep(name, record)
        try:
            self._write(self.model(name))
        except StorageError as error:
            log.error("%s: not written down: %s", name, error)
        return record

    def raise_highest_version(self, name: str, version: int) -> None:
        """Remember that a version was committed; the next `save` makes it durable."""
        model = self.model(name)
        highest = max(model.highest_version, version)
        self._models[name] = model.model_copy(update={"highest_version": highest})

    def report(self, name: str, record: DeploymentRecord) -> None:
        """Put the report of a state into the outbox; a repeat changes nothing."""
        active = self._tools.store.active(name)
        ref = active.ref if active is not None else None
        self._overdue.append(to_report(record, ref, self._tools.clock.now()))
        self.revision += 1
        try:
            self._put_overdue()
        except StorageError as error:
            log.error("%s: the report of %s waits: %s", name, record.state.value, error)

    def report_overdue(self) -> None:
        """Put into the outbox what the disk refused before, in order, as far as it goes now."""
        with contextlib.suppress(StorageError):  # was logged when it was refused first
            self._put_overdue()

    def status(self) -> dict[str, ModelStatus]:
        """Where every model name stands, for the retained `reported`."""
        store = self._tools.store
        rows = {}
        for name in sorted(set(store.names()) | set(self._models)):
            active, good = store.active(name), store.last_good(name)
            rows[name] = ModelStatus(
                active=active.ref if active else None,
                last_good=good.ref if good else None,
                deployment=self._deployment_status(name, self.newest(name)),
            )
        return rows

    def _write(self, model: ModelRecord) -> None:
        content = model.model_dump_json(exclude_none=True).encode()
        self._tools.store.write_record(model.name, content)

    def _put_overdue(self) -> None:
        while self._overdue:
            self._tools.outbox.put(self._overdue[0])
            del self._overdue[0]

    def _deployment_status(
        self, name: str, record: DeploymentRecord | None
    ) -> DeploymentStatus | None:
        if record is None:
            return None
        if self.is_held(name):
            record = record.model_copy(update={"detail": f"an application holds updates of {name}"})
        fetch = self._tools.bench.fetch_in_progress
        sha256 = record.artifact.sha256 if record.artifact is not None else ""
        if fetch is None or fetch.payload.sha256 != sha256:
            return to_status(record, 0, 0)
        return to_status(record, fetch.fetched_count, fetch.payload.chunk_count)
