"""The journal of a model name: what its newest deployment is doing, so that a restart goes on.

One file per model name, replaced as a whole. Written before the step it announces is done; every
step can be repeated.
"""

from __future__ import annotations

import hashlib

from pydantic import Field

from trimtab_agent.hook_rules import HookPoint
from trimtab_agent.in_use_verdict import Known
from trimtab_agent.measure.jobs import JobResult
from trimtab_protocol.base import Identifier, Name, WireModel
from trimtab_protocol.errors import ErrorCode, TrimtabError, error_from_code
from trimtab_protocol.lifecycle import DeploymentEvent, DeploymentState, advance
from trimtab_protocol.manifest import ArtifactRef, SignedManifest
from trimtab_protocol.messages import DeploymentReport, DeploymentStatus, Policy
from trimtab_protocol.signing import read_manifest

MAX_IDENTIFIER_LENGTH = 80
"""Of `protocol.base.Identifier`."""


class DeploymentRecord(WireModel):
    """One deployment of one artifact."""

    deployment_id: Identifier
    signed: SignedManifest
    artifact: ArtifactRef | None = Field(default=None, description="None: manifest not trusted")
    policy: Policy
    state: DeploymentState = DeploymentState.ASSIGNED
    error_code: ErrorCode | None = None
    detail: str = ""
    starts: int = 0
    probation_ends_at: float | None = None
    probe: JobResult | None = None
    is_restore: bool = False
    applications: tuple[Known, ...] = Field(default=(), description="who uses the name")
    hook_due: HookPoint | None = Field(default=None, description="has not answered yet")

    def moved(self, event: DeploymentEvent, error: TrimtabError | None = None) -> DeploymentRecord:
        """The record after an event of the transition table.

        Raises:
            ProtocolError: The table has no such transition.
        """
        changes: dict[str, object] = {"state": advance(self.state, event), "starts": 0}
        moved = self.model_copy(update=changes)
        return moved.because(error) if error is not None else moved

    def because(self, error: TrimtabError) -> DeploymentRecord:
        """The record with the reason for which it ends; in a state that is not final, will end."""
        return self.model_copy(update={"error_code": error.code, "detail": error.message})

    def reason(self) -> TrimtabError | None:
        """What `because` was given."""
        if self.error_code is None:
            return None
        return error_from_code(self.error_code, self.detail)

    def with_artifact(self) -> DeploymentRecord:
        """With the artifact's short form from the (verified) manifest."""
        return self.model_copy(update={"artifact": read_manifest(self.signed).ref()})


class ModelRecord(WireModel):
    """All that is remembered of a model name beside its slots."""

    name: Name
    highest_version: int = 0
    deployment: DeploymentRecord | None = None


def report_id_for(subject_id: str, what: str) -> str:
    """The id of the report of one thing about a deployment or trial: the same every time.

    An id of a deployment or trial may be as long as a report's own, so a long one is digested.
    """
    report_id = f"{subject_id}.{what}"
    if len(report_id) <= MAX_IDENTIFIER_LENGTH:
        return report_id
    return f"{hashlib.sha256(subject_id.encode()).hexdigest()[:32]}.{what}"


def to_status(record: DeploymentRecord, fetched_chunks: int, total_chunks: int) -> DeploymentStatus:
    """The form for the retained `reported`."""
    return DeploymentStatus(
        deployment_id=record.deployment_id,
        artifact=record.artifact,
        state=record.state,
        error_code=record.error_code,
        detail=record.detail,
        fetched_chunks=fetched_chunks,
        total_chunks=total_chunks,
    )


def to_report(
    record: DeploymentRecord, active: ArtifactRef | None, sent_at: float
) -> DeploymentReport:
    """The report of a state. Its id follows from deployment and state, so a repeat is recognised."""
    probe = record.probe
    return DeploymentReport(
        report_id=report_id_for(record.deployment_id, record.state.value),
        sent_at=sent_at,
        deployment_id=record.deployment_id,
        artifact=record.artifact,
        state=record.state,
        error_code=record.error_code,
        detail=record.detail,
        active=active,
        measurement=probe.measurement if probe is not None else None,
        incumbent=probe.incumbent if probe is not None else None,
        comparison=probe.comparison if probe is not None else None,
    )
