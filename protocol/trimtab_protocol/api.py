"""The control plane's HTTP API, as its clients see it. All paths are below `/api/v1`.

    PUT  /payloads/{sha256}                 raw model file; 201, or 200 if already there
    POST /artifacts                         SignedManifest -> Artifact; 201, or 409 on other content
    GET  /artifacts, /artifacts/{name}/{version}
    POST /devices                           DeviceSpec -> DeviceCredentials (shown once)
    GET  /devices, /devices/{device}        Device
    POST /trials                            TrialSpec -> Trial; 201
    GET  /trials/{trial_id}?wait_s=         Trial; waits until it has ended or the time is over
    POST /rollouts                          RolloutSpec -> Rollout; 201
    GET  /rollouts, /rollouts/{rollout_id}?wait_s=
    POST /rollouts/{rollout_id}/abort
    GET  /server                            ServerFacts
    GET  /healthz (outside /api/v1)         no token needed

Every request but /healthz carries `Authorization: Bearer TOKEN`. An error answers with a Problem,
whose `code` is an ErrorCode.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import Field

from trimtab_protocol.base import Identifier, Name, UnixTime, Version, WireModel
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.manifest import ArtifactRef, SignedManifest
from trimtab_protocol.measurement import Measurement, MeasureSpec
from trimtab_protocol.messages import Birth, Presence, Reported

API_PREFIX = "/api/v1"


class Problem(WireModel):
    """An error, after RFC 9457 (problem details)."""

    title: str
    status: int
    detail: str
    code: ErrorCode


class ServerFacts(WireModel):
    """What a client needs to know of a control plane."""

    version: str
    site: Name
    broker: str = Field(description="mosquitto, amqtt or external")
    mqtt_host: str
    mqtt_port: int


class Artifact(WireModel):
    """An artifact in the registry."""

    ref: ArtifactRef
    signed: SignedManifest
    created_at: UnixTime


class DeviceSpec(WireModel):
    """A device to be known."""

    device: Name
    labels: dict[str, str] = Field(default_factory=dict)


class DeviceCredentials(WireModel):
    """What a device needs to connect. The password is shown once and stored hashed."""

    device: Name
    site: Name
    mqtt_host: str
    mqtt_port: int
    username: str
    password: str


class Device(WireModel):
    """A device as the control plane sees it."""

    device: Name
    labels: dict[str, str] = Field(default_factory=dict)
    presence: Presence = Presence.OFFLINE
    device_class: Name | None = Field(default=None, description="None until its first birth")
    birth: Birth | None = None
    reported: Reported | None = None
    created_at: UnixTime
    last_seen_at: UnixTime | None = None


class TrialSpec(WireModel):
    """One artifact to be measured on one device of a class, without activating it."""

    name: Name
    version: Version
    device_class: Name
    device: Name | None = Field(default=None, description="None: any online device of the class")
    measure: MeasureSpec = MeasureSpec()
    expires_s: Annotated[float, Field(gt=0, le=7 * 86400)] = 600.0


class TrialState(str, Enum):
    """Where a trial stands."""

    QUEUED = "queued"  # no device of the class is free or online yet
    ASKED = "asked"
    MEASURED = "measured"
    FAILED = "failed"  # the device could not measure it; see error_code
    EXPIRED = "expired"


class Trial(WireModel):
    """A trial as the control plane sees it."""

    trial_id: Identifier
    spec: TrialSpec
    artifact: ArtifactRef
    state: TrialState
    device: Name | None = None
    measurement: Measurement | None = None
    error_code: ErrorCode | None = None
    detail: str = ""
    created_at: UnixTime
    finished_at: UnixTime | None = None
