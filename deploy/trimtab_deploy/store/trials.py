"""Trials: measurements that were asked for, and their answers."""

from __future__ import annotations

from sqlalchemy import Connection, Row, insert, select, update

from trimtab_deploy.engine.trial import OpenTrial
from trimtab_deploy.store.columns import from_text, must_from_text, to_text
from trimtab_deploy.store.schema import TRIALS
from trimtab_protocol.api import Trial, TrialSpec, TrialState
from trimtab_protocol.errors import ErrorCode, ProtocolError
from trimtab_protocol.manifest import ArtifactRef
from trimtab_protocol.measurement import Measurement
from trimtab_protocol.messages import TrialReport

OPEN_STATES = (TrialState.QUEUED.value, TrialState.ASKED.value)


def add(
    connection: Connection, trial_id: str, spec: TrialSpec, artifact: ArtifactRef, now: float
) -> Trial:
    """Queue a trial."""
    connection.execute(
        insert(TRIALS).values(
            trial_id=trial_id,
            spec=to_text(spec),
            artifact=to_text(artifact),
            sha256=artifact.sha256,
            state=TrialState.QUEUED.value,
            detail="",
            created_at=now,
            expires_at=now + spec.expires_s,
        )
    )
    return get(connection, trial_id)


def get(connection: Connection, trial_id: str) -> Trial:
    """One trial.

    Raises:
        ProtocolError: `protocol.unknown`.
    """
    row = connection.execute(select(TRIALS).where(TRIALS.c.trial_id == trial_id)).first()
    if row is None:
        raise ProtocolError(f"there is no trial {trial_id!r}", code=ErrorCode.PROTOCOL_UNKNOWN)
    return _read(row)


def expires_at(connection: Connection, trial_id: str) -> float:
    """When a trial is over, in Unix time."""
    return float(
        connection.execute(
            select(TRIALS.c.expires_at).where(TRIALS.c.trial_id == trial_id)
        ).scalar_one()
    )


def get_open(connection: Connection) -> list[OpenTrial]:
    """Trials that have not ended, oldest first."""
    rows = connection.execute(
        select(TRIALS)
        .where(TRIALS.c.state.in_(OPEN_STATES))
        .order_by(TRIALS.c.created_at, TRIALS.c.trial_id)
    )
    return [_read_open(row) for row in rows]


def mark_asked(connection: Connection, trial_id: str, device: str) -> None:
    """The device was chosen; it is asked again until it answers or the time is over."""
    _update(connection, trial_id, state=TrialState.ASKED.value, device=device)


def expire(connection: Connection, trial_id: str, now: float) -> None:
    """Nobody answered in time."""
    trial = get(connection, trial_id)
    if trial.device is not None:
        detail = f"{trial.device} did not answer in time"
    else:
        detail = f"no device of class {trial.spec.device_class} was free and online in time"
    _update(
        connection,
        trial_id,
        state=TrialState.EXPIRED.value,
        error_code=ErrorCode.REJECTED_EXPIRED.value,
        detail=detail,
        finished_at=now,
    )


def take_report(connection: Connection, device: str, report: TrialReport, now: float) -> bool:
    """Take the answer of the device that was asked; False if it was not asked (any more)."""
    row = connection.execute(select(TRIALS).where(TRIALS.c.trial_id == report.trial_id)).first()
    if row is None or row.device != device or row.state != TrialState.ASKED.value:
        return False
    is_measured = report.measurement is not None
    code = None if is_measured else report.error_code or ErrorCode.PROTOCOL_MALFORMED
    _update(
        connection,
        report.trial_id,
        state=(TrialState.MEASURED if is_measured else TrialState.FAILED).value,
        measurement=to_text(report.measurement),
        error_code=None if code is None else code.value,
        detail=report.detail,
        finished_at=now,
    )
    return True


def asked_of(connection: Connection, device: str) -> list[str]:
    """Ids of the trials that a device still owes an answer for."""
    return list(
        connection.execute(
            select(TRIALS.c.trial_id).where(
                TRIALS.c.device == device, TRIALS.c.state == TrialState.ASKED.value
            )
        ).scalars()
    )


def may_fetch(connection: Connection, device: str, sha256: str) -> bool:
    """Whether a payload belongs to a trial that a device was asked for."""
    row = connection.execute(
        select(TRIALS.c.trial_id).where(
            TRIALS.c.device == device,
            TRIALS.c.state == TrialState.ASKED.value,
            TRIALS.c.sha256 == sha256,
        )
    ).first()
    return row is not None


def _update(connection: Connection, trial_id: str, **values: str | float | None) -> None:
    connection.execute(update(TRIALS).where(TRIALS.c.trial_id == trial_id).values(**values))


def _read_open(row: Row[tuple[object, ...]]) -> OpenTrial:
    spec = must_from_text(TrialSpec, row.spec)
    return OpenTrial(
        trial_id=row.trial_id,
        device_class=spec.device_class,
        wanted_device=spec.device,
        asked=row.device,
        expires_at=row.expires_at,
    )


def _read(row: Row[tuple[object, ...]]) -> Trial:
    return Trial(
        trial_id=row.trial_id,
        spec=must_from_text(TrialSpec, row.spec),
        artifact=must_from_text(ArtifactRef, row.artifact),
        state=TrialState(row.state),
        device=row.device,
        measurement=from_text(Measurement, row.measurement),
        error_code=None if row.error_code is None else ErrorCode(row.error_code),
        detail=row.detail,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
