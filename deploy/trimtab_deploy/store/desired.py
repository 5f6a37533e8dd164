"""Desired states: what each device should reach, with a sequence that only grows."""

from __future__ import annotations

import json

from sqlalchemy import Connection, insert, select, update

from trimtab_deploy.store.columns import dump
from trimtab_deploy.store.schema import DESIRED
from trimtab_protocol.messages import Desired, DesiredModel
from trimtab_protocol.signing import read_manifest


def get(connection: Connection, device: str) -> Desired | None:
    """The desired state of a device, if it ever had one."""
    row = connection.execute(select(DESIRED).where(DESIRED.c.device == device)).first()
    if row is None:
        return None
    return Desired(sequence=row.sequence, models=json.loads(row.models))


def devices(connection: Connection) -> list[str]:
    """Every device that has a desired state."""
    return list(connection.execute(select(DESIRED.c.device).order_by(DESIRED.c.device)).scalars())


def put_model(
    connection: Connection, device: str, name: str, wanted: DesiredModel | None
) -> Desired:
    """Change one model of a device's desired state, with the next sequence.

    Args:
        connection: The open transaction.
        device: Whose state.
        name: The model name.
        wanted: What it should be at; None to want nothing of that name any more.
    """
    before = get(connection, device)
    after = with_model(before, name, wanted)
    models = after.models
    values = {
        "sequence": after.sequence,
        "models": dump(
            {key: row.model_dump(mode="json", exclude_none=True) for key, row in models.items()}
        ),
        "payloads": dump(
            sorted(read_manifest(row.signed).payload.sha256 for row in models.values())
        ),
    }
    if before is None:
        connection.execute(insert(DESIRED).values(device=device, **values))
    else:
        connection.execute(update(DESIRED).where(DESIRED.c.device == device).values(**values))
    return after


def with_model(before: Desired | None, name: str, wanted: DesiredModel | None) -> Desired:
    """The next desired state, with one model changed or taken out."""
    models = dict(before.models) if before is not None else {}
    if wanted is None:
        models.pop(name, None)
    else:
        models[name] = wanted
    return Desired(sequence=1 if before is None else before.sequence + 1, models=models)


def may_fetch(connection: Connection, device: str, sha256: str) -> bool:
    """Whether a payload belongs to the desired state of a device."""
    text = connection.execute(
        select(DESIRED.c.payloads).where(DESIRED.c.device == device)
    ).scalar_one_or_none()
    return text is not None and sha256 in json.loads(text)
