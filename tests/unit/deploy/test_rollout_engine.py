from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_deploy.engine.gate import StageDevice
from trimtab_deploy.engine.rollout import (
    BeginStage,
    EndRollout,
    PassStage,
    RolloutFacts,
    abort,
    decide,
    next_deadline,
)
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.rollout import Gate, OnFailure, RolloutSpec, RolloutState

S = DeploymentState


def make_facts(
    states: dict[str, S],
    *,
    stage: int = 0,
    in_stage: tuple[str, ...] | None = None,
    began_at: float | None = 100.0,
    on_failure: OnFailure = OnFailure.ROLL_BACK,
    state: RolloutState = RolloutState.RUNNING,
) -> RolloutFacts:
    chosen = tuple(states) if in_stage is None else in_stage
    return RolloutFacts(
        spec=RolloutSpec(name="m", version=2, gate=Gate(deadline_s=50), on_failure=on_failure),
        state=state,
        stage=stage,
        stage_began_at=began_at,
        stage_devices=[StageDevice(device, "pi", states[device]) for device in chosen],
        states=states,
    )


def test_a_stage_that_has_not_begun_begins() -> None:
    assert decide(make_facts({}, began_at=None), 0) == BeginStage(0)


def test_while_devices_work_it_waits() -> None:
    assert decide(make_facts({"a": S.PROBING}), 120) is None


def test_a_passed_stage_is_followed_by_the_next_and_the_last_commits() -> None:
    first = decide(make_facts({"a": S.COMMITTED}), 120)
    assert isinstance(first, PassStage)
    assert (first.next_stage, first.state) == (1, RolloutState.RUNNING)
    last = decide(make_facts({"a": S.COMMITTED, "b": S.COMMITTED}, stage=1, in_stage=("b",)), 120)
    assert isinstance(last, PassStage)
    assert (last.next_stage, last.state) == (1, RolloutState.COMMITTED)


def test_a_failure_before_activation_is_refused_and_everybody_goes_back() -> None:
    found = decide(make_facts({"a": S.FAILED, "b": S.FETCHING}), 120)
    assert isinstance(found, EndRollout)
    assert found.state is RolloutState.REFUSED
    assert found.go_back == ("a", "b")


@pytest.mark.parametrize("other", [S.ACTIVATING, S.PROBATION, S.COMMITTED, S.ROLLED_BACK])
def test_a_failure_after_activation_rolls_back(other: S) -> None:
    found = decide(make_facts({"a": S.FAILED, "b": other}), 120)
    assert isinstance(found, EndRollout)
    assert found.state is RolloutState.ROLLED_BACK
    assert found.go_back == ("a", "b")


def test_with_stop_devices_that_run_it_keep_it() -> None:
    states = {"a": S.COMMITTED, "b": S.ROLLED_BACK, "c": S.FETCHING, "d": S.PROBATION}
    found = decide(make_facts(states, on_failure=OnFailure.STOP), 120)
    assert isinstance(found, EndRollout)
    assert found.state is RolloutState.REFUSED
    assert found.go_back == ("b", "c")
    assert found.reason.startswith("stopped in stage 1 of 2")


def test_the_deadline_counts_from_the_beginning_of_the_stage() -> None:
    facts = make_facts({"a": S.FETCHING})
    assert next_deadline(facts) == 150
    assert decide(facts, 150) is None
    assert isinstance(decide(facts, 150.1), EndRollout)


def test_a_rollout_that_has_ended_does_nothing_more() -> None:
    for state in set(RolloutState) - {RolloutState.RUNNING}:
        facts = make_facts({"a": S.FAILED}, state=state)
        assert decide(facts, 1e9) is None
        assert abort(facts) is None
        assert next_deadline(facts) is None


def test_a_stage_that_has_not_begun_has_no_deadline() -> None:
    assert next_deadline(make_facts({}, began_at=None)) is None


def test_an_abort_gives_back_all_but_the_committed() -> None:
    found = abort(make_facts({"a": S.COMMITTED, "b": S.PROBATION, "c": S.FETCHING}))
    assert found is not None
    assert (found.state, found.go_back) == (RolloutState.ABORTED, ("b", "c"))


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(list(S)), min_size=1),
    st.floats(0, 300),
    st.sampled_from(list(OnFailure)),
)
def test_a_decision_never_leaves_a_failed_device_wanting_the_candidate(
    states: dict[str, S], now: float, on_failure: OnFailure
) -> None:
    found = decide(make_facts(states, on_failure=on_failure), now)
    if isinstance(found, EndRollout):
        bad = {device for device, state in states.items() if state in (S.FAILED, S.ROLLED_BACK)}
        assert bad <= set(found.go_back)
        if found.state is RolloutState.ROLLED_BACK:
            assert set(found.go_back) == set(states)


@given(st.lists(st.sampled_from([S.COMMITTED, S.FAILED]), min_size=1, max_size=8))
def test_played_to_the_end_it_commits_exactly_when_nobody_failed(results: list[S]) -> None:
    """One device per stage; each decision is applied as the control plane does."""
    names = [f"d{number}" for number in range(len(results))]
    spec = RolloutSpec.model_validate(
        {"name": "m", "version": 1, "stages": [{"count": n + 1} for n in range(len(results))]}
    )
    facts = replace(make_facts({}, began_at=None), spec=spec)
    for _ in range(3 * len(results)):
        found = decide(facts, 100)
        if isinstance(found, BeginStage):
            name, state = names[facts.stage], results[facts.stage]
            facts = replace(
                facts,
                stage_began_at=100,
                stage_devices=[StageDevice(name, "pi", state)],
                states={**facts.states, name: state},
            )
        elif isinstance(found, PassStage):
            facts = replace(facts, stage=found.next_stage, state=found.state, stage_began_at=None)
        elif isinstance(found, EndRollout):
            facts = replace(facts, state=found.state)
    is_good = all(result is S.COMMITTED for result in results)
    assert (facts.state is RolloutState.COMMITTED) is is_good
    assert facts.state is not RolloutState.RUNNING
