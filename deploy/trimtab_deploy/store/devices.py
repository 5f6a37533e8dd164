"""Devices: who is known, what each one is, and whether it is there."""

from __future__ import annotations

import json

from sqlalchemy import Connection, Row, insert, select, update

from trimtab_deploy.engine.presence import Seen, take_birth, take_status
from trimtab_deploy.store.columns import dump, from_text, to_text
from trimtab_deploy.store.schema import DEVICES
from trimtab_protocol.api import Device, DeviceSpec
from trimtab_protocol.errors import ErrorCode, ProtocolError
from trimtab_protocol.messages import Birth, Presence, Reported, Status


def add(connection: Connection, spec: DeviceSpec, verifier: str, now: float) -> None:
    """Remember a new device.

    Raises:
        ProtocolError: `protocol.conflict`: there is one of that name.
    """
    if is_known(connection, spec.device):
        raise ProtocolError(
            f"there is already a device {spec.device!r}; names are given once",
            code=ErrorCode.PROTOCOL_CONFLICT,
        )
    connection.execute(
        insert(DEVICES).values(
            device=spec.device,
            labels=dump(spec.labels),
            verifier=verifier,
            created_at=now,
            presence=Presence.OFFLINE.value,
        )
    )


def is_known(connection: Connection, device: str) -> bool:
    """Whether there is a device of that name."""
    row = connection.execute(select(DEVICES.c.device).where(DEVICES.c.device == device)).first()
    return row is not None


def verifiers(connection: Connection) -> dict[str, str]:
    """The password verifier of every device."""
    rows = connection.execute(select(DEVICES.c.device, DEVICES.c.verifier))
    return {row.device: row.verifier for row in rows}


def get(connection: Connection, device: str) -> Device:
    """One device.

    Raises:
        ProtocolError: `protocol.unknown`.
    """
    row = connection.execute(select(DEVICES).where(DEVICES.c.device == device)).first()
    if row is None:
        raise ProtocolError(
            f"there is no device {device!r}; see `trimtab-deploy device list`",
            code=ErrorCode.PROTOCOL_UNKNOWN,
        )
    return _read(row)


def get_all(connection: Connection) -> list[Device]:
    """Every device, by name."""
    return [_read(row) for row in connection.execute(select(DEVICES).order_by(DEVICES.c.device))]


def take_birth_of(
    connection: Connection, device: str, birth: Birth, *, is_replayed: bool, now: float
) -> None:
    """Remember what a device is."""
    seen = take_birth(_seen(connection, device), birth.session_id, is_replayed=is_replayed)
    _update(
        connection,
        device,
        birth=to_text(birth),
        device_class=birth.device_class,
        session_id=seen.session_id,
        presence=seen.presence.value,
        last_seen_at=birth.sent_at if is_replayed else now,
    )


def take_status_of(connection: Connection, device: str, status: Status) -> None:
    """Remember whether a device is there."""
    seen = take_status(_seen(connection, device), status)
    _update(connection, device, session_id=seen.session_id, presence=seen.presence.value)


def take_reported_of(connection: Connection, device: str, reported: Reported) -> None:
    """Remember the state a device says it is in."""
    _update(connection, device, reported=to_text(reported))


def touch(connection: Connection, device: str, now: float) -> None:
    """Remember that a device was heard."""
    _update(connection, device, last_seen_at=now)


def forget_presence(connection: Connection) -> None:
    """Nobody is there until the broker or the device says so (after our own restart)."""
    connection.execute(update(DEVICES).values(presence=Presence.OFFLINE.value))


def online(connection: Connection) -> list[tuple[str, str]]:
    """Name and class of every device that is there."""
    rows = connection.execute(
        select(DEVICES.c.device, DEVICES.c.device_class)
        .where(DEVICES.c.presence == Presence.ONLINE.value, DEVICES.c.device_class.is_not(None))
        .order_by(DEVICES.c.device)
    )
    return [(row.device, row.device_class) for row in rows]


def classes(connection: Connection) -> dict[str, str]:
    """The class of every device that has ever said what it is."""
    rows = connection.execute(
        select(DEVICES.c.device, DEVICES.c.device_class).where(DEVICES.c.device_class.is_not(None))
    )
    return {row.device: row.device_class for row in rows}


def reported_of(connection: Connection, device: str) -> Reported | None:
    """What a device last said of its state."""
    text = connection.execute(
        select(DEVICES.c.reported).where(DEVICES.c.device == device)
    ).scalar_one_or_none()
    return from_text(Reported, text)


def _seen(connection: Connection, device: str) -> Seen:
    row = connection.execute(
        select(DEVICES.c.session_id, DEVICES.c.presence).where(DEVICES.c.device == device)
    ).first()
    return Seen() if row is None else Seen(row.session_id, Presence(row.presence))


def _update(connection: Connection, device: str, **values: str | float | None) -> None:
    connection.execute(update(DEVICES).where(DEVICES.c.device == device).values(**values))


def _read(row: Row[tuple[object, ...]]) -> Device:
    return Device(
        device=row.device,
        labels=json.loads(row.labels),
        presence=Presence(row.presence),
        device_class=row.device_class,
        birth=from_text(Birth, row.birth),
        reported=from_text(Reported, row.reported),
        created_at=row.created_at,
        last_seen_at=row.last_seen_at,
    )
