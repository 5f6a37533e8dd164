"""Trials and rollouts over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from trimtab_deploy.api.parts import MAX_WAIT_S, Parts, wait_for
from trimtab_deploy.store import rollouts, trials
from trimtab_protocol.api import Trial, TrialSpec, TrialState
from trimtab_protocol.rollout import Rollout, RolloutSpec, RolloutState

Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_S)]
OPEN_TRIALS = (TrialState.QUEUED, TrialState.ASKED)


def make_router(parts: Parts) -> APIRouter:
    """The routes below `/trials` and `/rollouts`."""
    router = APIRouter()

    @router.post("/trials", status_code=201)
    async def post_trial(spec: TrialSpec) -> Trial:
        """Have one artifact measured by one device of a class."""
        return await parts.conductor.create_trial(spec)

    @router.get("/trials/{trial_id}")
    async def get_trial(trial_id: str, wait_s: Wait = 0.0) -> Trial:
        """One trial, when it has ended or the time is over."""
        return await wait_for(
            parts.changes,
            lambda: parts.database.run(lambda row: trials.get(row, trial_id)),
            lambda trial: trial.state not in OPEN_TRIALS,
            wait_s,
        )

    @router.post("/rollouts", status_code=201)
    async def post_rollout(spec: RolloutSpec) -> Rollout:
        """Begin a rollout."""
        return await parts.conductor.create_rollout(spec)

    @router.get("/rollouts")
    async def get_rollouts() -> list[Rollout]:
        """Every rollout, newest first, without its devices."""
        return await parts.database.run(rollouts.get_all)

    @router.get("/rollouts/{rollout_id}")
    async def get_rollout(rollout_id: str, wait_s: Wait = 0.0) -> Rollout:
        """One rollout with its devices, when it has ended or the time is over."""
        return await wait_for(
            parts.changes,
            lambda: parts.database.run(lambda row: rollouts.get(row, rollout_id)),
            lambda rollout: rollout.state is not RolloutState.RUNNING,
            wait_s,
        )

    @router.post("/rollouts/{rollout_id}/abort")
    async def abort_rollout(rollout_id: str) -> Rollout:
        """End a rollout; one that has ended stays as it is."""
        return await parts.conductor.abort_rollout(rollout_id)

    return router
