"""What a fit found: one document that holds everything that was measured, and the choice."""

from __future__ import annotations

from pydantic import Field

from trimtab_protocol.base import Identifier, Name, UnixTime, WireModel
from trimtab_protocol.budget import Budget, Outcome, Verdict
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.manifest import ArtifactRef, ModelFormat, Quality
from trimtab_protocol.measurement import Measurement, MeasureSpec
from trimtab_protocol.rollout import RolloutState

NOT_EVALUATED = "not evaluated"


class ClassReport(WireModel):
    """One candidate on one device class."""

    device_class: Name
    verdict: Verdict
    measurement: Measurement | None = Field(default=None, description="of the last trial")
    trials: int = 0
    trial_ids: tuple[Identifier, ...] = ()
    error_code: ErrorCode | None = Field(default=None, description="why the trial failed")
    detail: str = ""


class CandidateReport(WireModel):
    """One candidate on all device classes."""

    recipe: str
    format: ModelFormat
    artifact: ArtifactRef | None = Field(default=None, description="None: never pushed")
    size_bytes: int | None = None
    quality: Quality | None = None
    build_s: float | None = None
    outcome: Outcome
    reason: str = Field(description="why it was kept or not, in one sentence")
    host_verdict: Verdict | None = Field(
        default=None, description="by size and accuracy alone; its violations rule out a trial"
    )
    classes: tuple[ClassReport, ...] = ()


class FitReport(WireModel):
    """The whole fit."""

    name: Name
    task: str
    device_classes: tuple[Name, ...]
    budgets: dict[str, Budget]
    measure: MeasureSpec
    base: CandidateReport
    candidates: tuple[CandidateReport, ...] = Field(description="in the order they were tried")
    chosen: CandidateReport | None = None
    rollout_id: Identifier | None = None
    rollout_state: RolloutState | None = None
    rollout_reason: str = ""
    started_at: UnixTime
    finished_at: UnixTime
