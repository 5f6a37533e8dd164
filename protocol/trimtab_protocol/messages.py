"""One model per message. JSON in UTF-8; `schema_version` first; unknown fields are ignored. [P-2.1]

Correlation ids, expiry times and sequence numbers travel in the payload, so that an MQTT 3.1.1
broker serves as well as one that speaks MQTT 5.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import Annotated, Literal, TypeVar, Union

from pydantic import Field, TypeAdapter

from trimtab_protocol import PROTOCOL_VERSION
from trimtab_protocol.base import Identifier, Name, Sha256, UnixTime, WireModel, parse_versioned
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import ArtifactRef, RuntimeName, SignedManifest
from trimtab_protocol.measurement import Comparison, Measurement, MeasureSpec

MAX_GET_INDICES = 512

MAX_MESSAGE_BYTES = 128 * 1024
"""The packet limit of the narrowest broker that must serve. [P-2.5]"""


class Message(WireModel):
    """Every message names the protocol version that it speaks."""

    schema_version: str = PROTOCOL_VERSION


class RuntimeFact(WireModel):
    """A runtime that is installed on a device."""

    name: RuntimeName
    version: str
    package: str = ""


class Birth(Message):
    """What a device is. Retained, sent at every connect."""

    device_class: Name
    boot_id: str
    session_id: Identifier = Field(description="of this agent process; a new one after each start")
    agent_version: str
    fingerprint: Sha256 = Field(description="digest of all that decides the device class")
    board: str = ""
    cpu: str = ""
    cores: int = 1
    threads: int = 1
    machine: str = ""
    kernel: str = ""
    memory_total_bytes: int | None = None
    runtimes: tuple[RuntimeFact, ...] = ()
    sensors: tuple[str, ...] = ()
    sent_at: UnixTime


class Presence(str, Enum):
    """Whether a device is connected."""

    ONLINE = "online"
    OFFLINE = "offline"


class Status(Message):
    """Retained, and the last will.

    An old session's will cannot hide a new session: compare `session_id` with the birth's.
    """

    presence: Presence
    boot_id: str
    session_id: Identifier


class Policy(WireModel):
    """How a deployment is to be carried out.

    Args:
        probe: How much to measure before activation.
        max_p90_ratio: Refuse a candidate whose p90 is surely above this multiple of the
            incumbent's; None to allow anything. A device without an incumbent skips it.
        probation_s: Time that an artifact must stay healthy after activation.
        max_fetch_bytes_per_s: Rate cap of the delivery; None for none.
        expires_at: Do not begin after this time; None for never.
        max_starts: So many starts of the agent within probing or probation, or of an application
            within probation after its first, are a crash loop.
        heartbeat_timeout_s: An application that sends heartbeats and in probation sends none with
            the new artifact for so long brings the last good one back; None to not look at it.
        max_app_p90_ratio: So does one whose own p90 in probation is surely above this multiple of
            its p90 with the incumbent; None to not look at it.
        max_probe_s, max_probe_bytes: Bounds of the probing child; they only tighten the agent's own,
            which hold alone where one is None.
    """

    probe: MeasureSpec = MeasureSpec()
    max_p90_ratio: Annotated[float, Field(gt=0)] | None = None
    probation_s: Annotated[float, Field(ge=0, le=30 * 86400)] = 60.0
    max_fetch_bytes_per_s: Annotated[int, Field(ge=1024)] | None = None
    expires_at: UnixTime | None = None
    max_starts: Annotated[int, Field(ge=1, le=100)] = 3
    heartbeat_timeout_s: Annotated[float, Field(gt=0, le=86400)] | None = None
    max_app_p90_ratio: Annotated[float, Field(gt=0)] | None = None
    max_probe_s: Annotated[float, Field(gt=0, le=86400)] | None = None
    max_probe_bytes: Annotated[int, Field(ge=1024 * 1024)] | None = None


class DesiredModel(WireModel):
    """The artifact that a model name should be at on this device."""

    deployment_id: Identifier
    signed: SignedManifest
    policy: Policy = Policy()


class Desired(Message):
    """The state a device should reach. Retained; the whole state, never a difference. [P-4.1]"""

    sequence: Annotated[int, Field(ge=0)]
    models: dict[Name, DesiredModel] = Field(default_factory=dict)


class DeploymentStatus(WireModel):
    """Where the newest deployment of a model name stands."""

    deployment_id: Identifier
    artifact: ArtifactRef | None = None
    state: DeploymentState
    error_code: ErrorCode | None = None
    detail: str = ""
    fetched_chunks: int = 0
    total_chunks: int = 0


class ModelStatus(WireModel):
    """One model name on one device."""

    active: ArtifactRef | None = None
    last_good: ArtifactRef | None = None
    deployment: DeploymentStatus | None = None


class Reported(Message):
    """The state a device is in. Retained."""

    sequence: int = Field(description="of the desired state that was last taken up")
    boot_id: str
    session_id: Identifier
    models: dict[Name, ModelStatus] = Field(default_factory=dict)
    sent_at: UnixTime


class Ask(Message):
    """One measurement that changes nothing: a trial."""

    kind: Literal["measure"] = "measure"
    trial_id: Identifier
    signed: SignedManifest
    spec: MeasureSpec = MeasureSpec()
    expires_at: UnixTime


class ReportBase(Message):
    """Each report has an id and is repeated until it is acknowledged; keep the first. [P-4.4]"""

    report_id: Identifier
    sent_at: UnixTime


class TrialReport(ReportBase):
    """Answer to an Ask: a measurement, or the error that prevented it."""

    kind: Literal["trial"] = "trial"
    trial_id: Identifier
    measurement: Measurement | None = None
    error_code: ErrorCode | None = None
    detail: str = ""


class DeploymentReport(ReportBase):
    """A deployment reached a state worth recording (every one but the progress of fetching)."""

    kind: Literal["deployment"] = "deployment"
    deployment_id: Identifier
    artifact: ArtifactRef | None = None
    state: DeploymentState
    error_code: ErrorCode | None = None
    detail: str = ""
    active: ArtifactRef | None = Field(default=None, description="what is active after this")
    measurement: Measurement | None = Field(default=None, description="the probe's, candidate")
    incumbent: Measurement | None = Field(default=None, description="the probe's, incumbent")
    comparison: Comparison | None = None


class EventReport(ReportBase):
    """Something an operator should know."""

    kind: Literal["event"] = "event"
    event: str
    error_code: ErrorCode | None = None
    detail: str = ""


Report = Annotated[Union[TrialReport, DeploymentReport, EventReport], Field(discriminator="kind")]


@cache
def _any_report() -> TypeAdapter[TrialReport | DeploymentReport | EventReport]:
    """Made when the first report is read: it takes a megabyte, and few agents ever read one."""
    return TypeAdapter(Report)


class Ack(Message):
    """Reports that are safely in the database; the device may forget them."""

    report_ids: Annotated[tuple[Identifier, ...], Field(max_length=1000)]


class Get(Message):
    """Chunks that a device lacks. An empty chunk in answer means: not here."""

    sha256: Sha256
    chunk_bytes: Annotated[int, Field(ge=1024, le=1024**2)]
    indices: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, max_length=MAX_GET_INDICES)
    ]


MessageT = TypeVar("MessageT", bound=Message)


def parse_message(model: type[MessageT], payload: bytes | str) -> MessageT:
    """Read one message of a known kind.

    Raises:
        ProtocolError: Malformed (`protocol.malformed`) or another major version
            (`protocol.version`). Drop the message and count it.
    """
    return parse_versioned(model, payload, what=model.__name__.lower())


def parse_report(payload: bytes | str) -> TrialReport | DeploymentReport | EventReport:
    """Read a report of any kind.

    Raises:
        ProtocolError: As `parse_message`.
    """
    return parse_versioned(_any_report(), payload, what="report")


def encode(message: WireModel) -> bytes:
    """The bytes of a message on the wire."""
    return message.model_dump_json(exclude_none=True).encode()
