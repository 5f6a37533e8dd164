"""Rollouts and gates as they travel over HTTP: one artifact to many devices, in stages."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from trimtab_protocol.base import Identifier, Name, UnixTime, Version, WireModel
from trimtab_protocol.budget import Verdict
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import ArtifactRef
from trimtab_protocol.measurement import Comparison, Measurement
from trimtab_protocol.messages import Policy


class RolloutState(str, Enum):
    """Where a rollout stands."""

    RUNNING = "running"  # devices of the current stage are working
    COMMITTED = "committed"  # every stage passed its gate
    REFUSED = "refused"  # devices refused it before it was active anywhere
    ROLLED_BACK = "rolled_back"  # a gate failed after activation; devices went back
    ABORTED = "aborted"  # by a person


class OnFailure(str, Enum):
    """What a failed gate does to devices that already run the candidate."""

    ROLL_BACK = "roll_back"
    STOP = "stop"


class Gate(WireModel):
    """What must hold before the next stage may begin.

    Args:
        max_p90_ratio: Candidate p90 / incumbent p90, measured on each device of the stage. The
            stage fails if the median ratio of a device class is surely above it. None to allow
            any ratio; written out even where absent fields are left out, since leaving it out
            would mean the default.
        max_failed_ratio: Share of the stage's devices that may fail or roll back, 0 to 1.
        deadline_s: A stage that has not finished after this time fails.
    """

    max_p90_ratio: Annotated[float, Field(gt=0)] | None = 1.05
    max_failed_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    deadline_s: Annotated[float, Field(gt=0)] = 3600.0

    # Without a return type the JSON schema stays that of the fields.
    @model_serializer(mode="wrap")
    def _write_none_out(self, handler: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]  # noqa: ANN202
        return {"max_p90_ratio": self.max_p90_ratio, **handler(self)}


class StageSpec(WireModel):
    """One stage: so many devices, or a share of all targets; cumulative with earlier stages."""

    count: Annotated[int, Field(ge=1)] | None = None
    ratio: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> StageSpec:
        if (self.count is None) == (self.ratio is None):
            raise ValueError("a stage has either a count or a ratio")
        return self


class RolloutSpec(WireModel):
    """What is asked for."""

    name: Name
    version: Version
    device_classes: tuple[Name, ...] = Field(default=(), description="empty: every class")
    devices: tuple[Name, ...] = Field(default=(), description="empty: every device of the classes")
    stages: Annotated[tuple[StageSpec, ...], Field(min_length=1, max_length=20)] = (
        StageSpec(count=1),
        StageSpec(ratio=1.0),
    )
    gate: Gate = Gate()
    policy: Policy = Policy()
    on_failure: OnFailure = OnFailure.ROLL_BACK


class RolloutDevice(WireModel):
    """One device in a rollout."""

    device: Name
    device_class: Name
    stage: Annotated[int, Field(ge=0)]
    deployment_id: Identifier | None = None
    state: DeploymentState | None = Field(default=None, description="None: its stage has not begun")
    error_code: ErrorCode | None = None
    detail: str = ""
    active: ArtifactRef | None = None
    measurement: Measurement | None = None
    incumbent: Measurement | None = None
    comparison: Comparison | None = None


class Rollout(WireModel):
    """A rollout as the control plane sees it."""

    rollout_id: Identifier
    spec: RolloutSpec
    artifact: ArtifactRef
    state: RolloutState
    stage: Annotated[int, Field(ge=0)]
    verdicts: tuple[Verdict, ...] = Field(default=(), description="of the gates so far, in order")
    reason: str = ""
    devices: tuple[RolloutDevice, ...] = ()
    created_at: UnixTime
    finished_at: UnixTime | None = None
