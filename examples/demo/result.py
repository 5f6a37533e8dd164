"""`demo-out/result.json`: what the demo found, for machines. `docs/demo.md` explains each field."""

from __future__ import annotations

from pydantic import Field

from trimtab_protocol.base import Name, UnixTime, WireModel
from trimtab_protocol.budget import Budget, Verdict
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.manifest import ArtifactRef, ModelFormat, Quality
from trimtab_protocol.measurement import Comparison, Measurement
from trimtab_protocol.rollout import RolloutState


class CandidateOnClass(WireModel):
    """One candidate on one device class."""

    device_class: Name
    verdict: Verdict
    p50_ratio_to_fp32: float | None = Field(description="below 1 is faster; null if not measured")
    measurement: Measurement | None
    error_code: ErrorCode | None = None


class DemoCandidate(WireModel):
    """One recipe in one format."""

    recipe: str
    format: ModelFormat
    artifact: ArtifactRef | None
    size_bytes: int | None
    quality: Quality | None
    is_chosen: bool
    classes: tuple[CandidateOnClass, ...]


class DeviceOutcome(WireModel):
    """One device at the end of a rollout."""

    device: Name
    device_class: Name
    state: str = Field(description="state of the deployment; not_begun if its stage never began")
    active: ArtifactRef | None = Field(description="as the device itself reported afterwards")
    comparison: Comparison | None = Field(
        description="candidate against incumbent on this device, in alternating processes"
    )


class RolloutOutcome(WireModel):
    """One rollout: of the chosen artifact, or of a bad one."""

    what: str
    artifact: ArtifactRef
    state: RolloutState
    error_code: ErrorCode | None = Field(description="by which a device refused it")
    reason: str
    devices: tuple[DeviceOutcome, ...]


class DemoResult(WireModel):
    """The whole demo."""

    is_ok: bool
    failures: tuple[str, ...] = Field(description="what did not hold; empty if is_ok")
    started_at: UnixTime
    duration_s: float
    broker: str
    device_classes: tuple[Name, ...]
    budgets: dict[str, Budget]
    fp32: DemoCandidate
    candidates: tuple[DemoCandidate, ...]
    chosen: DemoCandidate | None
    rollouts: dict[str, RolloutOutcome] = Field(
        description="first (fp32), chosen, bad_golden, bad_slower"
    )
