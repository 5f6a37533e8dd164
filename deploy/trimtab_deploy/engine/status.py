"""What is known of one device in a rollout, and how news change it.

Rules:
    1. The state only moves forward in the order of `PROGRESS`; a final state never changes.
    2. Final states come from reports, which are never lost and carry the figures; the retained
       `reported` state only shows how far a device is on the way.
    3. Figures that a late report brings are still taken, if none are known yet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import PROGRESS, DeploymentState, is_final
from trimtab_protocol.manifest import ArtifactRef
from trimtab_protocol.measurement import Comparison, Measurement
from trimtab_protocol.messages import DeploymentReport, DeploymentStatus


@dataclass(frozen=True)
class DeviceStatus:
    """One device's part in a rollout, as far as it has said."""

    state: DeploymentState
    error_code: ErrorCode | None = None
    detail: str = ""
    active: ArtifactRef | None = None
    measurement: Measurement | None = None
    incumbent: Measurement | None = None
    comparison: Comparison | None = None


def moves_forward(old: DeploymentState, new: DeploymentState) -> bool:
    """Whether `new` may follow `old` in what the control plane shows."""
    return not is_final(old) and PROGRESS[new] > PROGRESS[old]


def take_report(status: DeviceStatus, report: DeploymentReport) -> DeviceStatus:
    """The status after a report, whatever the order in which reports arrive."""
    filled = replace(
        status,
        measurement=status.measurement or report.measurement,
        incumbent=status.incumbent or report.incumbent,
        comparison=status.comparison or report.comparison,
    )
    if not moves_forward(status.state, report.state):
        return filled
    return replace(
        filled,
        state=report.state,
        error_code=report.error_code,
        detail=report.detail,
        active=report.active if report.active is not None else status.active,
    )


def take_progress(status: DeviceStatus, shown: DeploymentStatus) -> DeviceStatus:
    """The status after a retained `reported`, which never ends anything."""
    if is_final(shown.state) or not moves_forward(status.state, shown.state):
        return status
    return replace(status, state=shown.state, detail=shown.detail)
