"""Deployments: one device's part in a rollout, as its reports tell it."""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from trimtab_deploy.engine.status import DeviceStatus
from trimtab_deploy.store.columns import to_text
from trimtab_deploy.store.rollouts import D, read_device
from trimtab_deploy.store.schema import ROLLOUT_DEVICES, ROLLOUTS
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.rollout import RolloutState

BUSY_STATES = (
    DeploymentState.FETCHING,
    DeploymentState.VERIFYING,
    DeploymentState.STAGED,
    DeploymentState.PROBING,
    DeploymentState.ACTIVATING,
)


def find(
    connection: Connection, device: str, deployment_id: str
) -> tuple[str, DeviceStatus] | None:
    """The rollout and the status of a deployment of a device."""
    row = connection.execute(
        select(ROLLOUT_DEVICES).where(D.deployment_id == deployment_id, D.device == device)
    ).first()
    if row is None or row.state is None:
        return None
    found = read_device(row)
    return row.rollout_id, DeviceStatus(
        state=DeploymentState(row.state),
        error_code=found.error_code,
        detail=found.detail,
        active=found.active,
        measurement=found.measurement,
        incumbent=found.incumbent,
        comparison=found.comparison,
    )


def put_status(connection: Connection, deployment_id: str, status: DeviceStatus) -> None:
    """Remember the new status of a deployment."""
    connection.execute(
        update(ROLLOUT_DEVICES)
        .where(D.deployment_id == deployment_id)
        .values(
            state=status.state.value,
            error_code=None if status.error_code is None else status.error_code.value,
            detail=status.detail,
            active=to_text(status.active),
            measurement=to_text(status.measurement),
            incumbent=to_text(status.incumbent),
            comparison=to_text(status.comparison),
        )
    )


def busy_devices(connection: Connection) -> set[str]:
    """Devices on which a running rollout is being fetched or probed."""
    rows = connection.execute(
        select(D.device)
        .join(ROLLOUTS, ROLLOUTS.c.rollout_id == D.rollout_id)
        .where(
            ROLLOUTS.c.state == RolloutState.RUNNING.value,
            D.state.in_([state.value for state in BUSY_STATES]),
        )
    )
    return set(rows.scalars())
