"""Rollouts and trials over a real database, without a broker: facts in, desired states out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from support.fleet_facts import Facts, make_reported, make_status, open_database
from support.measurements import make_comparison, make_measurement
from trimtab_deploy import steps
from trimtab_deploy.steps import Outcome
from trimtab_deploy.store import deployments, desired, devices, reports, rollouts, trials
from trimtab_deploy.store.sqlite import Database
from trimtab_deploy.targets import add_rollout, add_trial
from trimtab_protocol.api import TrialSpec, TrialState
from trimtab_protocol.errors import ErrorCode, ProtocolError
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import ArtifactRef
from trimtab_protocol.messages import (
    DeploymentStatus,
    EventReport,
    ModelStatus,
    Policy,
    Presence,
    TrialReport,
)
from trimtab_protocol.rollout import Gate, RolloutSpec, RolloutState
from trimtab_protocol.signing import read_manifest

S = DeploymentState
Work = Callable[[Facts, Connection], None]
Run = Callable[[Work], None]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    database: Database = open_database(tmp_path)

    def do(work: Work) -> None:
        asyncio.run(database.run(lambda row: work(Facts(row), row)))

    yield do
    database.close()


def step(connection: Connection, now: float = 100.0) -> Outcome:
    return steps.step_all(connection, now)


def wanted_ref(connection: Connection, device: str) -> ArtifactRef | None:
    state = desired.get(connection, device)
    model = None if state is None else state.models.get("m")
    return None if model is None else read_manifest(model.signed).ref()


def commit(facts: Facts, device: str, deployment_id: str, ref: ArtifactRef) -> None:
    facts.report_state(device, deployment_id, S.COMMITTED, active=ref)
    facts.hear(device, make_reported(m=ref))


def test_stage_by_stage_to_committed(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        for name in ("a", "b", "c"):
            facts.add_device(name)
        ref = facts.add_artifact("m", 1)
        rollout = add_rollout(db, "r", RolloutSpec(name="m", version=1), 50.0)
        first = step(db)
        assert len(first.desired) == 1
        (device,) = first.desired
        assert first.desired[device].sequence == 1
        assert rollouts.get(db, "r").devices[0].device == device
        assert step(db).desired == {}
        commit(facts, device, "r:0", ref)
        second = step(db)
        assert set(second.desired) == {"a", "b", "c"} - {device}
        for row in rollouts.get(db, "r").devices[1:]:
            assert row.deployment_id is not None
            commit(facts, row.device, row.deployment_id, ref)
        assert step(db).has_changed
        ended = rollouts.get(db, "r")
        assert ended.state is RolloutState.COMMITTED
        assert ended.finished_at == 100.0
        assert len(ended.verdicts) == 2
        assert rollout.finished_at is None

    run(story)


def test_after_a_failure_desired_is_what_the_device_really_ran(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        old, new = facts.add_artifact("m", 1), facts.add_artifact("m", 2)
        facts.hear("a", make_reported(m=old))  # by hand, never desired through us
        add_rollout(db, "r", RolloutSpec(name="m", version=2), 50.0)
        step(db)
        assert wanted_ref(db, "a") == new
        facts.report_state("a", "r:0", S.FAILED, error_code=ErrorCode.REJECTED_SLOWER)
        outcome = step(db)
        assert wanted_ref(db, "a") == old
        assert outcome.desired["a"].sequence == 2
        assert outcome.desired["a"].models["m"].deployment_id == "r:0:back"
        ended = rollouts.get(db, "r")
        assert ended.state is RolloutState.REFUSED
        assert "rejected.slower" in ended.reason

    run(story)


def test_a_device_that_had_nothing_wants_nothing_again(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        facts.add_artifact("m", 1)
        add_rollout(db, "r", RolloutSpec(name="m", version=1), 50.0)
        step(db)
        facts.report_state("a", "r:0", S.FAILED)
        step(db)
        state = desired.get(db, "a")
        assert state is not None
        assert (state.sequence, state.models) == (2, {})

    run(story)


def test_what_the_device_runs_and_nobody_knows_cannot_be_gone_back_to(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        facts.add_artifact("m", 2)
        facts.hear("a", make_reported(m=ArtifactRef(name="m", version=1, sha256="9" * 64)))
        add_rollout(db, "r", RolloutSpec(name="m", version=2), 50.0)
        step(db)
        facts.report_state("a", "r:0", S.FAILED)
        step(db)
        assert wanted_ref(db, "a") is None

    run(story)


def test_a_device_that_runs_it_already_counts_as_committed(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        ref = facts.add_artifact("m", 1)
        for rollout_id in ("r1", "r2"):
            facts.hear("a", make_reported(m=ref))
            add_rollout(db, rollout_id, RolloutSpec(name="m", version=1), 50.0)
            step(db)
            assert rollouts.get(db, rollout_id).state is RolloutState.COMMITTED
        state = desired.get(db, "a")
        assert state is not None
        assert state.sequence == 1  # the second rollout had nothing to say

    run(story)


def test_the_gate_reads_the_figures_of_the_devices(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        old, new = facts.add_artifact("m", 1), facts.add_artifact("m", 2)
        facts.hear("a", make_reported(m=old))
        add_rollout(db, "r", RolloutSpec(name="m", version=2), 50.0)
        step(db)
        facts.report_state(
            "a",
            "r:0",
            S.ACTIVATING,
            measurement=make_measurement(new, p90_ms=15.0),
            incumbent=make_measurement(old, p90_ms=10.0),
            comparison=make_comparison(old, 1.5, 1.4, 1.6),
        )
        facts.report_state("a", "r:0", S.COMMITTED, active=new)
        step(db)
        ended = rollouts.get(db, "r")
        assert ended.state is RolloutState.ROLLED_BACK
        assert ended.verdicts[0].violations[0].limit == pytest.approx(10.5)
        assert wanted_ref(db, "a") == old

    run(story)


def test_the_deadline_of_a_stage_is_told_and_kept(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        facts.add_artifact("m", 1)
        spec = RolloutSpec(name="m", version=1, gate=Gate(deadline_s=60))
        add_rollout(db, "r", spec, 50.0)
        assert step(db, 100.0).due_at == [160.0]
        step(db, 161.0)
        assert rollouts.get(db, "r").state is RolloutState.REFUSED

    run(story)


def test_a_newer_wish_is_not_taken_back(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        facts.add_artifact("m", 1)
        add_rollout(db, "r", RolloutSpec(name="m", version=1), 50.0)
        step(db)
        state = desired.get(db, "a")
        assert state is not None
        other = state.models["m"].model_copy(update={"deployment_id": "somebody-else"})
        desired.put_model(db, "a", "m", other)
        facts.report_state("a", "r:0", S.FAILED)
        assert step(db).desired == {}

    run(story)


def test_one_running_rollout_per_model_and_device(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        facts.add_device("b")
        facts.add_artifact("m", 1)
        facts.add_artifact("other", 1)
        only_a = RolloutSpec(name="m", version=1, devices=("a",))
        add_rollout(db, "r1", only_a, 50.0)
        with pytest.raises(ProtocolError) as caught:
            add_rollout(db, "r2", RolloutSpec(name="m", version=1), 50.0)
        assert caught.value.code is ErrorCode.PROTOCOL_CONFLICT
        add_rollout(db, "r3", RolloutSpec(name="m", version=1, devices=("b",)), 50.0)
        add_rollout(db, "r4", RolloutSpec(name="other", version=1), 50.0)
        step(db)
        state = desired.get(db, "a")
        assert state is not None
        assert set(state.models) <= {"m", "other"}

    run(story)


@pytest.mark.parametrize(
    "spec",
    [
        RolloutSpec(name="m", version=9),
        RolloutSpec(name="m", version=1, devices=("nobody",)),
        RolloutSpec(name="m", version=1, device_classes=("orin",)),
        RolloutSpec(name="for-orin", version=1),
    ],
)
def test_a_rollout_to_nobody_is_refused(run: Run, spec: RolloutSpec) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        facts.add_artifact("m", 1)
        facts.add_artifact("for-orin", 1, device_classes=("orin",))
        with pytest.raises(ProtocolError) as caught:
            add_rollout(db, "r", spec, 50.0)
        assert caught.value.code is ErrorCode.PROTOCOL_UNKNOWN

    run(story)


def test_the_policy_takes_the_limit_of_the_gate_unless_it_has_its_own() -> None:
    spec = RolloutSpec(name="m", version=1)
    assert steps.policy_for(spec).max_p90_ratio == 1.05
    own = spec.model_copy(update={"policy": Policy(max_p90_ratio=2.0)})
    assert steps.policy_for(own).max_p90_ratio == 2.0
    free = spec.model_copy(update={"gate": Gate(max_p90_ratio=None)})
    assert steps.policy_for(free).max_p90_ratio is None


def test_reported_shows_progress_and_ends_nothing(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        ref = facts.add_artifact("m", 1)
        add_rollout(db, "r", RolloutSpec(name="m", version=1), 50.0)
        step(db)
        for state, expected in (
            (S.FETCHING, S.FETCHING),
            (S.PROBING, S.PROBING),
            (S.COMMITTED, S.PROBING),
            (S.FETCHING, S.PROBING),
        ):
            shown = DeploymentStatus(deployment_id="r:0", artifact=ref, state=state)
            reported = make_reported().model_copy(
                update={"models": {"m": ModelStatus(deployment=shown), "x": ModelStatus()}}
            )
            facts.hear("a", reported)
            assert rollouts.get(db, "r").devices[0].state is expected
        assert deployments.busy_devices(db) == {"a"}

    run(story)


def test_a_report_of_another_device_or_of_no_deployment_changes_nothing(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        facts.add_device("b")
        facts.add_artifact("m", 1)
        add_rollout(db, "r", RolloutSpec(name="m", version=1, devices=("a",)), 50.0)
        step(db)
        facts.report_state("b", "r:0", S.FAILED)
        facts.report_state("a", "unknown", S.FAILED)
        assert rollouts.get(db, "r").devices[0].state is S.ASSIGNED

    run(story)


def test_a_trial_is_asked_measured_and_kept(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        facts.add_device("b")
        ref = facts.add_artifact("m", 1)
        trial = add_trial(
            db, "t1", TrialSpec(name="m", version=1, device_class="sim", device="b"), 50.0
        )
        assert trial.state is TrialState.QUEUED
        ((device, ask),) = step(db).asks
        assert (device, ask.trial_id, ask.expires_at) == ("b", "t1", 650.0)
        assert steps.may_fetch(db, "b", ref.sha256)
        assert not steps.may_fetch(db, "a", ref.sha256)
        assert [row.trial_id for row in steps.pending_asks(db, "b")] == ["t1"]
        answer = TrialReport(
            report_id="x", sent_at=1.0, trial_id="t1", measurement=make_measurement(ref)
        )
        facts.hear("a", answer)  # it was not asked
        assert trials.get(db, "t1").state is TrialState.ASKED
        facts.hear("b", answer)
        assert trials.get(db, "t1").state is TrialState.MEASURED
        assert not steps.may_fetch(db, "b", ref.sha256)
        assert steps.pending_asks(db, "b") == []
        assert step(db).due_at == []

    run(story)


def test_a_trial_that_failed_keeps_the_reason_and_a_silent_one_expires(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        facts.add_artifact("m", 1)
        spec = TrialSpec(name="m", version=1, device_class="sim", expires_s=10)
        add_trial(db, "t1", spec, 50.0)
        step(db, 51.0)
        failed = TrialReport(
            report_id="x",
            sent_at=1.0,
            trial_id="t1",
            error_code=ErrorCode.MODEL_LOAD,
            detail="no such operator",
        )
        facts.hear("a", failed)
        assert trials.get(db, "t1").error_code is ErrorCode.MODEL_LOAD
        add_trial(db, "t2", spec, 60.0)
        assert step(db, 61.0).due_at == [70.0]
        step(db, 70.0)
        silent = trials.get(db, "t2")
        assert (silent.state, silent.error_code) == (
            TrialState.EXPIRED,
            ErrorCode.REJECTED_EXPIRED,
        )
        assert silent.detail == "a did not answer in time"
        late = failed.model_copy(update={"trial_id": "t2", "report_id": "y"})
        facts.hear("a", late)
        assert trials.get(db, "t2").state is TrialState.EXPIRED

    run(story)


def test_offline_and_busy_devices_are_not_asked(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        facts.add_artifact("m", 1)
        add_trial(db, "t1", TrialSpec(name="m", version=1, device_class="sim"), 50.0)
        facts.hear("a", make_status(Presence.OFFLINE))
        assert step(db).asks == []
        facts.hear("a", make_status(Presence.ONLINE))
        add_rollout(db, "r", RolloutSpec(name="m", version=1), 50.0)
        steps.step_rollout(db, "r", 50.0, Outcome())
        facts.report_state("a", "r:0", S.PROBING)
        assert step(db).asks == []
        facts.report_state("a", "r:0", S.PROBATION)
        assert len(step(db).asks) == 1

    run(story)


def test_a_trial_for_the_wrong_class_or_nobody_is_refused(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        facts.add_artifact("m", 1)
        for spec, code in (
            ({"device": "a", "device_class": "orin"}, ErrorCode.PROTOCOL_MALFORMED),
            ({"device": "nobody", "device_class": "sim"}, ErrorCode.PROTOCOL_UNKNOWN),
            ({"version": 9, "device_class": "sim"}, ErrorCode.PROTOCOL_UNKNOWN),
        ):
            with pytest.raises(ProtocolError) as caught:
                add_trial(
                    db, "t", TrialSpec.model_validate({"name": "m", "version": 1, **spec}), 1.0
                )
            assert caught.value.code is code

    run(story)


def test_the_entitlement_follows_the_desired_state(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        ref = facts.add_artifact("m", 1)
        assert not steps.may_fetch(db, "a", ref.sha256)
        add_rollout(db, "r", RolloutSpec(name="m", version=1), 50.0)
        step(db)
        assert steps.may_fetch(db, "a", ref.sha256)
        assert not steps.may_fetch(db, "b", ref.sha256)
        facts.report_state("a", "r:0", S.FAILED)
        step(db)
        assert not steps.may_fetch(db, "a", ref.sha256)

    run(story)


def test_a_report_is_kept_once_per_device(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        facts.add_device("b")
        event = EventReport(report_id="e", sent_at=1.0, event="started")
        for device in ("a", "a", "b"):
            facts.hear(device, event)
        assert (reports.count(db, "a"), reports.count(db, "b")) == (1, 1)

    run(story)


def test_after_a_restart_nobody_is_there_until_it_says_so(run: Run) -> None:
    def story(facts: Facts, db: Connection) -> None:
        facts.add_device("a")
        assert devices.online(db) == [("a", "sim")]
        devices.forget_presence(db)
        assert devices.online(db) == []
        facts.hear("a", make_status(Presence.ONLINE))
        assert devices.online(db) == [("a", "sim")]

    run(story)
