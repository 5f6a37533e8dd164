"""Artifacts: `name@version`, immutable, stored as their owner signed them."""

from __future__ import annotations

from sqlalchemy import Connection, Row, insert, select

from trimtab_deploy.store.columns import must_from_text, to_text
from trimtab_deploy.store.schema import ARTIFACTS
from trimtab_protocol.api import Artifact
from trimtab_protocol.errors import ErrorCode, ProtocolError
from trimtab_protocol.manifest import ArtifactRef, Manifest, SignedManifest


def add(
    connection: Connection, manifest: Manifest, signed: SignedManifest, now: float
) -> tuple[Artifact, bool]:
    """Remember an artifact; True if it is new, False if exactly this one was there.

    Raises:
        ProtocolError: `protocol.conflict`: the same name and version with another content.
    """
    found = find(connection, manifest.name, manifest.version)
    if found is not None:
        if found.signed.manifest_json == signed.manifest_json:
            return found, False
        raise ProtocolError(
            f"{manifest.ref()} is already there with another content; an artifact never changes: "
            "give it the next version",
            code=ErrorCode.PROTOCOL_CONFLICT,
        )
    connection.execute(
        insert(ARTIFACTS).values(
            name=manifest.name,
            version=manifest.version,
            sha256=manifest.payload.sha256,
            signed=to_text(signed),
            created_at=now,
        )
    )
    return Artifact(ref=manifest.ref(), signed=signed, created_at=now), True


def find(connection: Connection, name: str, version: int) -> Artifact | None:
    """An artifact, if there is one."""
    row = connection.execute(
        select(ARTIFACTS).where(ARTIFACTS.c.name == name, ARTIFACTS.c.version == version)
    ).first()
    return None if row is None else _read(row)


def get(connection: Connection, name: str, version: int) -> Artifact:
    """One artifact.

    Raises:
        ProtocolError: `protocol.unknown`.
    """
    found = find(connection, name, version)
    if found is None:
        raise ProtocolError(
            f"there is no artifact {name}@{version}; push it with `trimtab-deploy artifact push`",
            code=ErrorCode.PROTOCOL_UNKNOWN,
        )
    return found


def get_all(connection: Connection) -> list[Artifact]:
    """Every artifact, by name and version."""
    rows = connection.execute(select(ARTIFACTS).order_by(ARTIFACTS.c.name, ARTIFACTS.c.version))
    return [_read(row) for row in rows]


def _read(row: Row[tuple[object, ...]]) -> Artifact:
    return Artifact(
        ref=ArtifactRef(name=row.name, version=row.version, sha256=row.sha256),
        signed=must_from_text(SignedManifest, row.signed),
        created_at=row.created_at,
    )
