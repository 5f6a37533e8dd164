"""Rollouts and their devices: the record from which every decision is derived."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, Row, insert, select, update

from trimtab_deploy.engine.rollout import EndRollout, PassStage
from trimtab_deploy.store.columns import dump, from_text, must_from_text, to_text
from trimtab_deploy.store.schema import ROLLOUT_DEVICES, ROLLOUTS
from trimtab_protocol.budget import Verdict
from trimtab_protocol.errors import ErrorCode, ProtocolError
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import ArtifactRef
from trimtab_protocol.measurement import Comparison, Measurement
from trimtab_protocol.messages import DesiredModel
from trimtab_protocol.rollout import Rollout, RolloutDevice, RolloutSpec, RolloutState

D = ROLLOUT_DEVICES.c


@dataclass(frozen=True)
class Target:
    """A device that takes part."""

    device: str
    device_class: str
    stage: int


def add(
    connection: Connection,
    rollout_id: str,
    spec: RolloutSpec,
    *,
    artifact: ArtifactRef,
    targets: Iterable[Target],
    now: float,
) -> None:
    """Remember a new rollout.

    Raises:
        ProtocolError: `protocol.conflict`: a device of it is in a running rollout of the model.
    """
    chosen = list(targets)
    _refuse_overlap(connection, spec.name, {row.device for row in chosen})
    connection.execute(
        insert(ROLLOUTS).values(
            rollout_id=rollout_id,
            spec=to_text(spec),
            name=spec.name,
            artifact=to_text(artifact),
            state=RolloutState.RUNNING.value,
            stage=0,
            verdicts="[]",
            reason="",
            created_at=now,
        )
    )
    connection.execute(
        insert(ROLLOUT_DEVICES),
        [
            {
                "rollout_id": rollout_id,
                "device": row.device,
                "position": position,
                "device_class": row.device_class,
                "stage": row.stage,
                "detail": "",
            }
            for position, row in enumerate(chosen)
        ],
    )


def get(connection: Connection, rollout_id: str) -> Rollout:
    """One rollout with all of its devices.

    Raises:
        ProtocolError: `protocol.unknown`.
    """
    row = connection.execute(select(ROLLOUTS).where(ROLLOUTS.c.rollout_id == rollout_id)).first()
    if row is None:
        raise ProtocolError(
            f"there is no rollout {rollout_id!r}; see `trimtab-deploy rollout list`",
            code=ErrorCode.PROTOCOL_UNKNOWN,
        )
    return _read(row, device_rows(connection, rollout_id))


def get_all(connection: Connection) -> list[Rollout]:
    """Every rollout, newest first, without its devices."""
    rows = connection.execute(select(ROLLOUTS).order_by(ROLLOUTS.c.created_at.desc()))
    return [_read(row, []) for row in rows]


def running_ids(connection: Connection) -> list[str]:
    """Rollouts that have not ended, oldest first."""
    return list(
        connection.execute(
            select(ROLLOUTS.c.rollout_id)
            .where(ROLLOUTS.c.state == RolloutState.RUNNING.value)
            .order_by(ROLLOUTS.c.created_at)
        ).scalars()
    )


def head(connection: Connection, rollout_id: str) -> tuple[Rollout, float | None]:
    """A rollout without its devices, and when its current stage began."""
    row = connection.execute(select(ROLLOUTS).where(ROLLOUTS.c.rollout_id == rollout_id)).one()
    return _read(row, []), row.stage_began_at


def device_rows(connection: Connection, rollout_id: str) -> list[RolloutDevice]:
    """The devices of a rollout with their figures, in their order."""
    rows = connection.execute(
        select(ROLLOUT_DEVICES).where(D.rollout_id == rollout_id).order_by(D.position)
    )
    return [read_device(row) for row in rows]


def states(
    connection: Connection, rollout_id: str
) -> list[tuple[str, int, DeploymentState | None]]:
    """Device, stage and state, without the figures: cheap enough for every step."""
    rows = connection.execute(
        select(D.device, D.stage, D.state).where(D.rollout_id == rollout_id).order_by(D.position)
    )
    return [(row.device, row.stage, row.state and DeploymentState(row.state)) for row in rows]


def begin_stage(connection: Connection, rollout_id: str, now: float) -> None:
    """The devices of the current stage are assigned."""
    _update(connection, rollout_id, stage_began_at=now)


def assign(
    connection: Connection,
    rollout_id: str,
    device: str,
    deployment_id: str,
    *,
    state: DeploymentState,
    detail: str,
    active: ArtifactRef | None,
    previous: DesiredModel | None,
) -> None:
    """A device was given the artifact; `previous` is what it is to go back to."""
    connection.execute(
        update(ROLLOUT_DEVICES)
        .where(D.rollout_id == rollout_id, D.device == device)
        .values(
            deployment_id=deployment_id,
            state=state.value,
            detail=detail,
            active=to_text(active),
            previous=to_text(previous),
        )
    )


def previous_of(connection: Connection, rollout_id: str, device: str) -> DesiredModel | None:
    """What a device is to go back to; None if it had nothing."""
    text = connection.execute(
        select(D.previous).where(D.rollout_id == rollout_id, D.device == device)
    ).scalar_one_or_none()
    return from_text(DesiredModel, text)


def pass_stage(connection: Connection, rollout_id: str, step: PassStage, now: float) -> None:
    """A gate let it go on."""
    is_over = step.state is not RolloutState.RUNNING
    _update(
        connection,
        rollout_id,
        verdicts=_with_verdict(connection, rollout_id, step.verdict),
        stage=step.next_stage,
        state=step.state.value,
        reason="every stage passed its gate" if is_over else "",
        **({"finished_at": now} if is_over else {"stage_began_at": None}),
    )


def end(connection: Connection, rollout_id: str, step: EndRollout, now: float) -> None:
    """A gate failed, or a person aborted it."""
    _update(
        connection,
        rollout_id,
        verdicts=_with_verdict(connection, rollout_id, step.verdict),
        state=step.state.value,
        reason=step.reason,
        finished_at=now,
    )


def _refuse_overlap(connection: Connection, name: str, devices: set[str]) -> None:
    rows = connection.execute(
        select(D.device, D.rollout_id)
        .join(ROLLOUTS, ROLLOUTS.c.rollout_id == D.rollout_id)
        .where(ROLLOUTS.c.name == name, ROLLOUTS.c.state == RolloutState.RUNNING.value)
    )
    for row in rows:
        if row.device in devices:
            raise ProtocolError(
                f"{row.device} is in the running rollout {row.rollout_id} of {name}; wait for its "
                f"end or abort it: trimtab-deploy rollout abort {row.rollout_id}",
                code=ErrorCode.PROTOCOL_CONFLICT,
            )


def _with_verdict(connection: Connection, rollout_id: str, verdict: Verdict | None) -> str:
    text = connection.execute(
        select(ROLLOUTS.c.verdicts).where(ROLLOUTS.c.rollout_id == rollout_id)
    ).scalar_one()
    rows = json.loads(text)
    return dump(rows if verdict is None else [*rows, verdict.model_dump(mode="json")])


def _update(connection: Connection, rollout_id: str, **values: str | float | None) -> None:
    connection.execute(update(ROLLOUTS).where(ROLLOUTS.c.rollout_id == rollout_id).values(**values))


def _read(row: Row[tuple[object, ...]], devices: list[RolloutDevice]) -> Rollout:
    return Rollout(
        rollout_id=row.rollout_id,
        spec=must_from_text(RolloutSpec, row.spec),
        artifact=must_from_text(ArtifactRef, row.artifact),
        state=RolloutState(row.state),
        stage=row.stage,
        verdicts=tuple(Verdict.model_validate(verdict) for verdict in json.loads(row.verdicts)),
        reason=row.reason,
        devices=tuple(devices),
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


def read_device(row: Row[tuple[object, ...]]) -> RolloutDevice:
    """One device of a rollout from its row."""
    return RolloutDevice(
        device=row.device,
        device_class=row.device_class,
        stage=row.stage,
        deployment_id=row.deployment_id,
        state=None if row.state is None else DeploymentState(row.state),
        error_code=None if row.error_code is None else ErrorCode(row.error_code),
        detail=row.detail,
        active=from_text(ArtifactRef, row.active),
        measurement=from_text(Measurement, row.measurement),
        incumbent=from_text(Measurement, row.incumbent),
        comparison=from_text(Comparison, row.comparison),
    )
