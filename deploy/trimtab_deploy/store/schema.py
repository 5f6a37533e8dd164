"""The tables. Documents of the protocol are kept as their JSON; what is searched has a column."""

from __future__ import annotations

from sqlalchemy import Column, Float, Index, Integer, MetaData, String, Table, Text

SCHEMA_VERSION = 1

METADATA = MetaData()

DEVICES = Table(
    "devices",
    METADATA,
    Column("device", String(64), primary_key=True),
    Column("labels", Text, nullable=False),
    Column("verifier", Text, nullable=False),  # of the password; see `passwords`
    Column("created_at", Float, nullable=False),
    Column("device_class", String(64), index=True),
    Column("presence", String(16), nullable=False),
    Column("session_id", String(80)),
    Column("last_seen_at", Float),
    Column("birth", Text),
    Column("reported", Text),
)

ARTIFACTS = Table(
    "artifacts",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("signed", Text, nullable=False),
    Column("created_at", Float, nullable=False),
)

TRIALS = Table(
    "trials",
    METADATA,
    Column("trial_id", String(80), primary_key=True),
    Column("spec", Text, nullable=False),
    Column("artifact", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("device", String(64)),
    Column("measurement", Text),
    Column("error_code", String(64)),
    Column("detail", Text, nullable=False, default=""),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("finished_at", Float),
)

ROLLOUTS = Table(
    "rollouts",
    METADATA,
    Column("rollout_id", String(80), primary_key=True),
    Column("spec", Text, nullable=False),
    Column("name", String(64), nullable=False),
    Column("artifact", Text, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("stage", Integer, nullable=False),
    Column("stage_began_at", Float),
    Column("verdicts", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
)

ROLLOUT_DEVICES = Table(
    "rollout_devices",
    METADATA,
    Column("rollout_id", String(80), primary_key=True),
    Column("device", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("device_class", String(64), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("deployment_id", String(80), unique=True),
    Column("state", String(16)),
    Column("error_code", String(64)),
    Column("detail", Text, nullable=False, default=""),
    Column("active", Text),
    Column("measurement", Text),
    Column("incumbent", Text),
    Column("comparison", Text),
    Column("previous", Text),  # DesiredModel to go back to; NULL: the model was not there
)
Index("rollout_devices_by_device", ROLLOUT_DEVICES.c.device, ROLLOUT_DEVICES.c.state)

DESIRED = Table(
    "desired",
    METADATA,
    Column("device", String(64), primary_key=True),
    Column("sequence", Integer, nullable=False),
    Column("models", Text, nullable=False),
    Column("payloads", Text, nullable=False),  # digests, for the question who may fetch what
)

REPORTS = Table(
    "reports",
    METADATA,
    Column("device", String(64), primary_key=True),
    Column("report_id", String(80), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("received_at", Float, nullable=False),
    Column("body", Text, nullable=False),
)
