"""[P-5.1] [P-5.2] [P-5.3] [P-5.4] [P-5.5] The life of a deployment is one closed table."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_protocol.errors import ProtocolError
from trimtab_protocol.lifecycle import (
    FINAL_STATES,
    PROGRESS,
    SUPERSEDABLE_STATES,
    TRANSITIONS,
    DeploymentEvent,
    DeploymentState,
    advance,
    is_final,
    may_supersede,
)

S, E = DeploymentState, DeploymentEvent
BEFORE_ACTIVATING = (S.ASSIGNED, S.FETCHING, S.VERIFYING, S.STAGED, S.PROBING)
HAPPY = (
    (E.ACCEPT, S.FETCHING),
    (E.FETCHED, S.VERIFYING),
    (E.VERIFIED, S.STAGED),
    (E.PROBE, S.PROBING),
    (E.PROBED, S.ACTIVATING),
    (E.ACTIVATED, S.PROBATION),
    (E.PROVEN, S.COMMITTED),
)


@pytest.mark.parametrize(("state", "event"), list(product(S, E)))
def test_every_state_takes_an_event_of_the_table_or_refuses_it(
    state: DeploymentState, event: DeploymentEvent
) -> None:
    """[P-5.2]"""
    if (state, event) in TRANSITIONS:
        assert advance(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(ProtocolError, match=f"{state.value} cannot take '{event.value}'"):
            advance(state, event)


def test_the_table_has_just_the_transitions_that_the_drawing_shows() -> None:
    """[P-5.2] Counted by hand from docs/protocol.md: 7 forward, 10 to failed, 2 back."""
    assert len(TRANSITIONS) == 19


def test_a_deployment_that_goes_well_passes_through_every_state_in_order() -> None:
    """[P-5.1]"""
    state = S.ASSIGNED
    for event, after in HAPPY:
        state = advance(state, event)
        assert state is after


def test_nothing_leads_out_of_a_final_state() -> None:
    """[P-5.3]"""
    assert {S.COMMITTED, S.FAILED, S.ROLLED_BACK} == FINAL_STATES
    for state in S:
        has_exit = any(source is state for source, _ in TRANSITIONS)
        assert has_exit != is_final(state)


def test_every_state_is_reached_from_assigned() -> None:
    """[P-5.1]"""
    reached = {S.ASSIGNED}
    while True:
        more = {target for (source, _), target in TRANSITIONS.items() if source in reached}
        if more <= reached:
            break
        reached |= more
    assert reached == set(S)


def test_a_final_state_is_reached_from_every_state() -> None:
    """[P-5.3]"""
    ending = set(FINAL_STATES)
    for _ in S:
        ending |= {source for (source, _), target in TRANSITIONS.items() if target in ending}
    assert ending == set(S)


def test_no_deployment_returns_to_assigned() -> None:
    """[P-5.4]"""
    assert S.ASSIGNED not in TRANSITIONS.values()


@given(events=st.lists(st.sampled_from(E), max_size=40))
def test_progress_grows_along_every_path(events: list[DeploymentEvent]) -> None:
    """[P-5.4]"""
    state = S.ASSIGNED
    for event in events:
        if (state, event) not in TRANSITIONS:
            continue
        after = advance(state, event)
        assert PROGRESS[after] > PROGRESS[state]
        state = after


def test_every_state_has_its_own_progress_and_the_final_ones_are_the_furthest() -> None:
    """[P-5.4]"""
    assert sorted(PROGRESS.values()) == list(range(len(S)))
    furthest = sorted(S, key=PROGRESS.__getitem__)[-len(FINAL_STATES) :]
    assert set(furthest) == FINAL_STATES


@pytest.mark.parametrize("state", S)
def test_a_newer_desired_state_may_supersede_only_before_activating(
    state: DeploymentState,
) -> None:
    """[P-5.5]"""
    is_before = state in BEFORE_ACTIVATING
    assert may_supersede(state) == is_before
    assert ((state, E.SUPERSEDE) in TRANSITIONS) == is_before
    assert ((state, E.FAIL) in TRANSITIONS) == is_before
    assert set(BEFORE_ACTIVATING) == SUPERSEDABLE_STATES


@pytest.mark.parametrize("state", S)
def test_only_what_may_have_been_active_is_rolled_back(state: DeploymentState) -> None:
    """[P-5.6]"""
    may_roll_back = (state, E.ROLL_BACK) in TRANSITIONS
    assert may_roll_back == (state in (S.ACTIVATING, S.PROBATION))
    if may_roll_back:
        assert advance(state, E.ROLL_BACK) is S.ROLLED_BACK


def test_an_artifact_is_activated_only_after_it_was_probed() -> None:
    """[P-5.7]"""
    into_activating = [key for key, target in TRANSITIONS.items() if target is S.ACTIVATING]
    into_probation = [key for key, target in TRANSITIONS.items() if target is S.PROBATION]
    assert into_activating == [(S.PROBING, E.PROBED)]
    assert into_probation == [(S.ACTIVATING, E.ACTIVATED)]
