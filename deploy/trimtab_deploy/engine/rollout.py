"""What a running rollout does next.

Rules:
    1. A stage begins when its devices are assigned; it is judged by its gate until that speaks.
    2. A gate that lets it go on begins the next stage; after the last one it is committed.
    3. A gate that fails ends it: `refused` if no device had it active yet or `on_failure` is stop,
       else `rolled_back`. The desired state of its devices goes back to what they had before, so
       that nobody tries it again; with `stop`, devices that already run it keep it.
    4. A person may abort it: devices that have committed keep it, the others go back.
    5. A rollout that has ended does nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_deploy.engine.gate import StageDevice, judge_stage
from trimtab_protocol.budget import Verdict
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.rollout import OnFailure, RolloutSpec, RolloutState

RUNS_IT = frozenset(
    {DeploymentState.ACTIVATING, DeploymentState.PROBATION, DeploymentState.COMMITTED}
)
WAS_ACTIVE = RUNS_IT | {DeploymentState.ROLLED_BACK}


@dataclass(frozen=True)
class RolloutFacts:
    """Everything a decision is made of.

    Args:
        spec: What was asked for.
        state: Where it stands.
        stage: The stage that is being worked on.
        stage_began_at: When its devices were assigned; None if they are not yet.
        stage_devices: Devices of this stage.
        states: State of every device that was assigned so far, in all stages.
    """

    spec: RolloutSpec
    state: RolloutState
    stage: int
    stage_began_at: float | None
    stage_devices: Sequence[StageDevice]
    states: dict[str, DeploymentState]


@dataclass(frozen=True)
class BeginStage:
    """Assign the artifact to the devices of a stage."""

    stage: int


@dataclass(frozen=True)
class PassStage:
    """The stage is over; `state` is COMMITTED after the last one, else RUNNING."""

    verdict: Verdict
    next_stage: int
    state: RolloutState


@dataclass(frozen=True)
class EndRollout:
    """It failed or was aborted; `go_back` are the devices whose desired state is put back."""

    state: RolloutState
    reason: str
    go_back: tuple[str, ...]
    verdict: Verdict | None = None


Decision = BeginStage | PassStage | EndRollout


def decide(facts: RolloutFacts, now: float) -> Decision | None:
    """The next step of a rollout, or None if it has to wait.

    Args:
        facts: What is recorded.
        now: Unix time in seconds.
    """
    if facts.state is not RolloutState.RUNNING:
        return None
    if facts.stage_began_at is None:
        return BeginStage(facts.stage)
    is_over = now - facts.stage_began_at > facts.spec.gate.deadline_s
    result = judge_stage(facts.stage_devices, facts.spec.gate, is_over_deadline=is_over)
    if result is None:
        return None
    if not result.may_go_on:
        return _fail(facts, result.verdict)
    is_last = facts.stage + 1 >= len(facts.spec.stages)
    return PassStage(
        verdict=result.verdict,
        next_stage=facts.stage if is_last else facts.stage + 1,
        state=RolloutState.COMMITTED if is_last else RolloutState.RUNNING,
    )


def next_deadline(facts: RolloutFacts) -> float | None:
    """When a decision may be due although nothing was heard."""
    if facts.state is not RolloutState.RUNNING or facts.stage_began_at is None:
        return None
    return facts.stage_began_at + facts.spec.gate.deadline_s


def abort(facts: RolloutFacts) -> EndRollout | None:
    """End a running rollout by a person's wish; None if it has ended already."""
    if facts.state is not RolloutState.RUNNING:
        return None
    go_back = tuple(
        device for device, state in facts.states.items() if state is not DeploymentState.COMMITTED
    )
    return EndRollout(RolloutState.ABORTED, "aborted by a person", go_back)


def _fail(facts: RolloutFacts, verdict: Verdict) -> EndRollout:
    was_active = any(state in WAS_ACTIVE for state in facts.states.values())
    stays = was_active and facts.spec.on_failure is OnFailure.STOP
    go_back = tuple(
        device for device, state in facts.states.items() if not (stays and state in RUNS_IT)
    )
    where = f"stage {facts.stage + 1} of {len(facts.spec.stages)}"
    if stays:
        reason = f"stopped in {where}, devices that run it keep it: {verdict.reason}"
        return EndRollout(RolloutState.REFUSED, reason, go_back, verdict)
    state = RolloutState.ROLLED_BACK if was_active else RolloutState.REFUSED
    return EndRollout(state, f"{where}: {verdict.reason}", go_back, verdict)
