"""An empty database and the few facts that tests of the control plane begin with."""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import Connection

from support.artifacts import make_artifact
from trimtab_deploy.inbox import Heard, Parsed, remember
from trimtab_deploy.passwords import make_verifier
from trimtab_deploy.store import artifacts, devices
from trimtab_deploy.store.sqlite import Database
from trimtab_protocol.api import DeviceSpec
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import ArtifactRef
from trimtab_protocol.messages import (
    Birth,
    DeploymentReport,
    ModelStatus,
    Presence,
    Reported,
    Status,
)
from trimtab_protocol.signing import read_manifest


def make_birth(device_class: str = "sim", session_id: str = "s-1") -> Birth:
    return Birth(
        device_class=device_class,
        boot_id="b",
        session_id=session_id,
        agent_version="0",
        fingerprint="0" * 64,
        sent_at=1.0,
    )


def make_status(presence: Presence, session_id: str = "s-1") -> Status:
    return Status(presence=presence, boot_id="b", session_id=session_id)


def make_reported(**active: ArtifactRef | None) -> Reported:
    models = {name: ModelStatus(active=ref) for name, ref in active.items()}
    return Reported(sequence=1, boot_id="b", session_id="s-1", models=models, sent_at=1.0)


def open_database(folder: Path) -> Database:
    return Database(folder / "trimtab.db")


class Facts:
    """Writes what devices and people say, inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._reports = 0

    def add_device(self, name: str, device_class: str = "sim") -> None:
        spec = DeviceSpec(device=name)
        devices.add(self.connection, spec, make_verifier("x"), 1.0)
        self.hear(name, make_birth(device_class))

    def add_artifact(self, name: str, version: int, **more: object) -> ArtifactRef:
        payload = f"{name}{version}".encode() * 100
        signed, _ = make_artifact(name, version, payload, **more)  # type: ignore[arg-type]
        manifest = read_manifest(signed)
        artifacts.add(self.connection, manifest, signed, 1.0)
        return manifest.ref()

    def hear(self, device: str, message: Parsed, now: float = 10.0) -> None:
        remember(self.connection, [Heard(device, message, is_retained=False)], now)

    def report_state(
        self, device: str, deployment_id: str, state: DeploymentState, **more: object
    ) -> None:
        self._reports += 1
        report = DeploymentReport.model_validate(
            {
                "report_id": f"{device}-{self._reports}-{time.monotonic_ns()}",
                "sent_at": 1.0,
                "deployment_id": deployment_id,
                "state": state,
                **more,
            }
        )
        self.hear(device, report)
