"""What to do about the state that the control plane desires: pure.

Rules, in this order:
    1. A deployment that was already taken up, or has ended, is not begun again.
    2. Between activation and commit nothing may interrupt, except going back to the last good one.
    3. Before activation a newer desire supersedes the older.
    4. What is active already needs no work; what is last good needs a swap of links and no
       download. Everything else is begun from the start.
    5. Nothing of an artifact is believed, not even its name, before its signature was verified.

A failed deployment is not retried by the device: the control plane decides, with a new id.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trimtab_protocol.lifecycle import DeploymentState, is_final, may_supersede
from trimtab_protocol.manifest import ArtifactRef


class Step(str, Enum):
    """What the agent does next for one model name."""

    NOTHING = "nothing"
    WAIT = "wait"  # look again when the running deployment has ended
    ADOPT = "adopt"  # it is active already: record it as committed
    RESTORE = "restore"  # swap back to the last good one
    BEGIN = "begin"
    ROLL_BACK = "roll_back"  # end the deployment in probation by going back


@dataclass(frozen=True)
class Standing:
    """Where a model name stands on this device."""

    active: ArtifactRef | None
    last_good: ArtifactRef | None
    deployment_id: str | None
    state: DeploymentState | None


@dataclass(frozen=True)
class Decision:
    """The next step, and whether the running deployment is superseded first."""

    step: Step
    is_superseding: bool = False


def reconcile(standing: Standing, wanted_id: str, wanted: ArtifactRef | None) -> Decision:
    """Decide what to do about one desired model.

    Args:
        standing: The device's state.
        wanted_id: Deployment id of the desired model.
        wanted: The desired artifact if its manifest is trusted; None begins a deployment that
            will be refused with its reason.
    """
    if wanted_id == standing.deployment_id:
        return Decision(Step.NOTHING)
    is_running = standing.state is not None and not is_final(standing.state)
    if is_running and standing.state is not None and not may_supersede(standing.state):
        goes_back = wanted is not None and wanted == standing.last_good != standing.active
        return Decision(Step.ROLL_BACK if goes_back else Step.WAIT)
    if wanted is not None and wanted == standing.active:
        return Decision(Step.ADOPT, is_superseding=is_running)
    if wanted is not None and wanted == standing.last_good:
        return Decision(Step.RESTORE, is_superseding=is_running)
    return Decision(Step.BEGIN, is_superseding=is_running)
