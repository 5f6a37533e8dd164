"""The life of a deployment: one table, used by the agent, the control plane and the tests.

    assigned → fetching → verifying → staged → probing → activating → probation → committed
                     any of these → failed            activating, probation → rolled_back

Rules:
    1. A state changes only by an event in the table; anything else is a ProtocolError.
    2. `committed`, `failed` and `rolled_back` are final for that deployment.
    3. Before `activating` nothing that was good has been touched, so a failure needs no repair and
       a newer desired state may supersede. From `activating` on, failure means rolling back.
"""

from __future__ import annotations

from enum import Enum

from trimtab_protocol.errors import ProtocolError


class DeploymentState(str, Enum):
    """Where one artifact on one device stands. [P-5.1]"""

    ASSIGNED = "assigned"  # desired by the control plane, not begun
    FETCHING = "fetching"  # chunks are arriving
    VERIFYING = "verifying"  # length and digest of the whole
    STAGED = "staged"  # whole and in its slot, not yet tried
    PROBING = "probing"  # a child loads, checks and measures it
    ACTIVATING = "activating"  # the active link is being swapped
    PROBATION = "probation"  # active, and has to prove itself
    COMMITTED = "committed"  # proven; this is the incumbent now
    FAILED = "failed"  # never became active
    ROLLED_BACK = "rolled_back"  # was active, the last good one is active again


class DeploymentEvent(str, Enum):
    """What moves a deployment. [P-5.2]"""

    ACCEPT = "accept"  # manifest trusted and requirements met
    FETCHED = "fetched"  # every chunk is on disk
    VERIFIED = "verified"
    PROBE = "probe"
    PROBED = "probed"  # golden vectors and budget kept
    ACTIVATED = "activated"
    PROVEN = "proven"
    FAIL = "fail"
    SUPERSEDE = "supersede"  # a newer desired state arrived
    ROLL_BACK = "roll_back"


S, E = DeploymentState, DeploymentEvent

TRANSITIONS: dict[tuple[DeploymentState, DeploymentEvent], DeploymentState] = {
    (S.ASSIGNED, E.ACCEPT): S.FETCHING,
    (S.FETCHING, E.FETCHED): S.VERIFYING,
    (S.VERIFYING, E.VERIFIED): S.STAGED,
    (S.STAGED, E.PROBE): S.PROBING,
    (S.PROBING, E.PROBED): S.ACTIVATING,
    (S.ACTIVATING, E.ACTIVATED): S.PROBATION,
    (S.PROBATION, E.PROVEN): S.COMMITTED,
    (S.ACTIVATING, E.ROLL_BACK): S.ROLLED_BACK,
    (S.PROBATION, E.ROLL_BACK): S.ROLLED_BACK,
    **{
        (state, event): S.FAILED
        for state in (S.ASSIGNED, S.FETCHING, S.VERIFYING, S.STAGED, S.PROBING)
        for event in (E.FAIL, E.SUPERSEDE)
    },
}

FINAL_STATES = frozenset({S.COMMITTED, S.FAILED, S.ROLLED_BACK})

SUPERSEDABLE_STATES = frozenset({S.ASSIGNED, S.FETCHING, S.VERIFYING, S.STAGED, S.PROBING})

PROGRESS: dict[DeploymentState, int] = {state: rank for rank, state in enumerate(DeploymentState)}
"""Order of the states, so that a late report never turns a deployment back."""


def advance(state: DeploymentState, event: DeploymentEvent) -> DeploymentState:
    """The state after an event.

    Raises:
        ProtocolError: The table has no such transition.
    """
    try:
        return TRANSITIONS[(state, event)]
    except KeyError as error:
        raise ProtocolError(
            f"a deployment that is {state.value} cannot take '{event.value}'"
        ) from error


def is_final(state: DeploymentState) -> bool:
    """Whether nothing more can happen to the deployment."""
    return state in FINAL_STATES


def may_supersede(state: DeploymentState) -> bool:
    """Whether a newer desired state may still take its place."""
    return state in SUPERSEDABLE_STATES
