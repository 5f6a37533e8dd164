"""The whole table of where a model name stands and what is wanted."""

from __future__ import annotations

import pytest

from trimtab_agent.reconcile import Decision, Standing, Step, reconcile
from trimtab_protocol.lifecycle import FINAL_STATES, SUPERSEDABLE_STATES, DeploymentState
from trimtab_protocol.manifest import ArtifactRef

ACTIVE = ArtifactRef(name="digits", version=2, sha256="a" * 64)
LAST_GOOD = ArtifactRef(name="digits", version=1, sha256="b" * 64)
OTHER = ArtifactRef(name="digits", version=3, sha256="c" * 64)
SAME_VERSION_OTHER_CONTENT = ArtifactRef(name="digits", version=2, sha256="d" * 64)

WANTED = {
    "what is active": ACTIVE,
    "what is last good": LAST_GOOD,
    "something else": OTHER,
    "the active version with other content": SAME_VERSION_OTHER_CONTENT,
    "untrusted": None,
}
WHEN_NOTHING_RUNS = {
    "what is active": Step.ADOPT,
    "what is last good": Step.RESTORE,
    "something else": Step.BEGIN,
    "the active version with other content": Step.BEGIN,
    "untrusted": Step.BEGIN,
}
BINDING = (DeploymentState.ACTIVATING, DeploymentState.PROBATION)


def a_standing(
    state: DeploymentState | None,
    *,
    active: ArtifactRef | None = ACTIVE,
    last_good: ArtifactRef | None = LAST_GOOD,
) -> Standing:
    return Standing(
        active=active,
        last_good=last_good,
        deployment_id="d1" if state is not None else None,
        state=state,
    )


def test_the_table_covers_every_state() -> None:
    assert set(DeploymentState) == FINAL_STATES | SUPERSEDABLE_STATES | set(BINDING)


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("state", [None, *sorted(FINAL_STATES)])
def test_when_nothing_runs_the_wanted_artifact_alone_decides(
    state: DeploymentState | None, wanted: str
) -> None:
    decision = reconcile(a_standing(state), "d2", WANTED[wanted])
    assert decision == Decision(WHEN_NOTHING_RUNS[wanted], is_superseding=False)


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("state", sorted(SUPERSEDABLE_STATES))
def test_before_activation_a_newer_desire_supersedes(state: DeploymentState, wanted: str) -> None:
    decision = reconcile(a_standing(state), "d2", WANTED[wanted])
    assert decision == Decision(WHEN_NOTHING_RUNS[wanted], is_superseding=True)


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("state", BINDING)
def test_from_activation_to_commit_only_going_back_interrupts(
    state: DeploymentState, wanted: str
) -> None:
    expected = Step.ROLL_BACK if wanted == "what is last good" else Step.WAIT
    assert reconcile(a_standing(state), "d2", WANTED[wanted]) == Decision(expected)


@pytest.mark.parametrize("state", BINDING)
def test_what_is_active_and_last_good_at_once_does_not_roll_itself_back(
    state: DeploymentState,
) -> None:
    standing = a_standing(state, active=LAST_GOOD, last_good=LAST_GOOD)
    assert reconcile(standing, "d2", LAST_GOOD).step is Step.WAIT


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("state", list(DeploymentState))
def test_a_deployment_that_was_taken_up_is_not_begun_again(
    state: DeploymentState, wanted: str
) -> None:
    assert reconcile(a_standing(state), "d1", WANTED[wanted]) == Decision(Step.NOTHING)


@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("state", [None, *DeploymentState])
def test_on_a_device_without_any_model_nothing_is_adopted_or_restored(
    state: DeploymentState | None, wanted: str
) -> None:
    standing = a_standing(state, active=None, last_good=None)
    assert reconcile(standing, "d2", WANTED[wanted]).step in (Step.BEGIN, Step.WAIT)
