"""From facts to decisions to facts: each function is one transaction's work.

Rules:
    1. A decision is derived from what the database says and nothing else, so a process that is
       killed between two of them goes on where it was.
    2. What must be published is returned, and published after the transaction; what was not
       published before a crash is published again at the next start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from trimtab_deploy.engine.gate import StageDevice
from trimtab_deploy.engine.rollout import (
    BeginStage,
    EndRollout,
    PassStage,
    RolloutFacts,
    decide,
    next_deadline,
)
from trimtab_deploy.engine.trial import AskDevice, Candidate, next_expiry, schedule
from trimtab_deploy.store import artifacts, deployments, desired, devices, rollouts, trials
from trimtab_protocol.lifecycle import DeploymentState, is_final
from trimtab_protocol.manifest import ArtifactRef
from trimtab_protocol.messages import Ask, Desired, DesiredModel, Policy
from trimtab_protocol.rollout import Rollout, RolloutDevice, RolloutSpec
from trimtab_protocol.signing import read_manifest


@dataclass
class Outcome:
    """What has to be published, and when to look again."""

    desired: dict[str, Desired] = field(default_factory=dict)
    asks: list[tuple[str, Ask]] = field(default_factory=list)
    due_at: list[float] = field(default_factory=list)
    has_changed: bool = False


def step_all(connection: Connection, now: float) -> Outcome:
    """Take every running rollout and every open trial as far as it can go now."""
    outcome = Outcome()
    for rollout_id in rollouts.running_ids(connection):
        step_rollout(connection, rollout_id, now, outcome)
    step_trials(connection, now, outcome)
    return outcome


def step_rollout(connection: Connection, rollout_id: str, now: float, outcome: Outcome) -> None:
    """Take one rollout as far as it can go now."""
    while True:
        facts = load_facts(connection, rollout_id)
        decision = decide(facts, now)
        if decision is None:
            break
        outcome.has_changed = True
        if isinstance(decision, BeginStage):
            begin_stage(connection, rollout_id, now, outcome)
        elif isinstance(decision, PassStage):
            rollouts.pass_stage(connection, rollout_id, decision, now)
        else:
            end_rollout(connection, rollout_id, decision, now, outcome)
    deadline = next_deadline(facts)
    if deadline is not None:
        outcome.due_at.append(deadline)


def load_facts(connection: Connection, rollout_id: str) -> RolloutFacts:
    """Everything that a decision about a rollout is made of.

    The figures are read only when every device of the stage has ended: before that no rule looks at
    them, and they are large.
    """
    rollout, began_at = rollouts.head(connection, rollout_id)
    rows = rollouts.states(connection, rollout_id)
    in_stage = [state for _, stage, state in rows if stage == rollout.stage]
    if began_at is not None and all(state is not None and is_final(state) for state in in_stage):
        detailed = rollouts.device_rows(connection, rollout_id)
        stage_devices = [_judged(row) for row in detailed if row.stage == rollout.stage]
    else:
        stage_devices = [
            StageDevice(device, "", state or DeploymentState.ASSIGNED)
            for device, stage, state in rows
            if stage == rollout.stage
        ]
    return RolloutFacts(
        spec=rollout.spec,
        state=rollout.state,
        stage=rollout.stage,
        stage_began_at=began_at,
        stage_devices=stage_devices,
        states={device: state for device, _, state in rows if state is not None},
    )


def begin_stage(connection: Connection, rollout_id: str, now: float, outcome: Outcome) -> None:
    """Assign the artifact to the devices of the current stage."""
    rollout = rollouts.get(connection, rollout_id)
    for position, row in enumerate(rollout.devices):
        if row.stage == rollout.stage and row.state is None:
            _assign(connection, rollout, row, f"{rollout_id}:{position}", outcome)
    rollouts.begin_stage(connection, rollout_id, now)


def end_rollout(
    connection: Connection, rollout_id: str, step: EndRollout, now: float, outcome: Outcome
) -> None:
    """End a rollout and put the desired state of its devices back."""
    rollout = rollouts.get(connection, rollout_id)
    ours = {row.device: row.deployment_id for row in rollout.devices}
    for device in step.go_back:
        state = desired.get(connection, device)
        current = None if state is None else state.models.get(rollout.spec.name)
        if current is None or current.deployment_id != ours[device]:
            continue  # it was never changed by us, or somebody changed it since
        previous = rollouts.previous_of(connection, rollout_id, device)
        if previous is not None:  # a new id, so that the device takes it for news
            going_back = f"{current.deployment_id}:back"
            previous = previous.model_copy(update={"deployment_id": going_back})
        outcome.desired[device] = desired.put_model(connection, device, rollout.spec.name, previous)
    rollouts.end(connection, rollout_id, step, now)


def step_trials(connection: Connection, now: float, outcome: Outcome) -> None:
    """Expire what is over and ask who is free."""
    opened = trials.get_open(connection)
    if not opened:
        return
    for decision in schedule(opened, _candidates(connection), now):
        outcome.has_changed = True
        if isinstance(decision, AskDevice):
            trials.mark_asked(connection, decision.trial_id, decision.device)
            outcome.asks.append((decision.device, make_ask(connection, decision.trial_id)))
        else:
            trials.expire(connection, decision.trial_id, now)
    expiry = next_expiry(trials.get_open(connection))
    if expiry is not None:
        outcome.due_at.append(expiry)


def make_ask(connection: Connection, trial_id: str) -> Ask:
    """The message that asks for a trial."""
    trial = trials.get(connection, trial_id)
    artifact = artifacts.get(connection, trial.spec.name, trial.spec.version)
    return Ask(
        trial_id=trial_id,
        signed=artifact.signed,
        spec=trial.spec.measure,
        expires_at=trials.expires_at(connection, trial_id),
    )


def pending_asks(connection: Connection, device: str) -> list[Ask]:
    """What a device still owes an answer for."""
    return [make_ask(connection, trial_id) for trial_id in trials.asked_of(connection, device)]


def may_fetch(connection: Connection, device: str, sha256: str) -> bool:
    """Whether a device is entitled to a payload now."""
    return desired.may_fetch(connection, device, sha256) or trials.may_fetch(
        connection, device, sha256
    )


def policy_for(spec: RolloutSpec) -> Policy:
    """The policy that devices get: the gate's limit on the p90 ratio, unless they have their own."""
    if spec.policy.max_p90_ratio is not None or spec.gate.max_p90_ratio is None:
        return spec.policy
    return spec.policy.model_copy(update={"max_p90_ratio": spec.gate.max_p90_ratio})


def _assign(
    connection: Connection,
    rollout: Rollout,
    row: RolloutDevice,
    deployment_id: str,
    outcome: Outcome,
) -> None:
    name = rollout.spec.name
    active = _active_of(connection, row.device, name)
    state = desired.get(connection, row.device)
    before = None if state is None else state.models.get(name)
    is_there = active == rollout.artifact
    rollouts.assign(
        connection,
        rollout.rollout_id,
        row.device,
        deployment_id,
        state=DeploymentState.COMMITTED if is_there else DeploymentState.ASSIGNED,
        detail="was active already" if is_there else "",
        active=active,
        previous=_previous(connection, active, before),
    )
    if is_there and before is not None and _ref_of(before) == rollout.artifact:
        return
    artifact = artifacts.get(connection, name, rollout.spec.version)
    wanted = DesiredModel(
        deployment_id=deployment_id, signed=artifact.signed, policy=policy_for(rollout.spec)
    )
    outcome.desired[row.device] = desired.put_model(connection, row.device, name, wanted)


def _previous(
    connection: Connection, active: ArtifactRef | None, before: DesiredModel | None
) -> DesiredModel | None:
    """What a device is to go back to: what it really runs, not what it was once told to run."""
    if active is None:
        return None
    if before is not None and _ref_of(before) == active:
        return before
    found = artifacts.find(connection, active.name, active.version)
    if found is None or found.ref != active:
        return None
    return DesiredModel(deployment_id="back", signed=found.signed)


def _active_of(connection: Connection, device: str, name: str) -> ArtifactRef | None:
    reported = devices.reported_of(connection, device)
    model = None if reported is None else reported.models.get(name)
    return None if model is None else model.active


def _candidates(connection: Connection) -> Sequence[Candidate]:
    busy = deployments.busy_devices(connection)
    return [
        Candidate(device, device_class, is_busy=device in busy)
        for device, device_class in devices.online(connection)
    ]


def _judged(row: RolloutDevice) -> StageDevice:
    incumbent = row.incumbent
    code = f" ({row.error_code.value})" if row.error_code is not None else ""
    return StageDevice(
        device=row.device,
        device_class=row.device_class,
        state=row.state or DeploymentState.ASSIGNED,
        reason=f"{row.detail}{code}".strip(),
        comparison=row.comparison,
        incumbent_p90_ms=None if incumbent is None else incumbent.latency.p90_ms.value,
    )


def _ref_of(model: DesiredModel) -> ArtifactRef:
    return read_manifest(model.signed).ref()
