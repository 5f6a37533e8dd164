"""The agent's settings: one TOML file, checked whole before anything starts.

    state_dir = "/var/lib/trimtab"
    credentials = "credentials.json"      # as `trimtab-deploy device add` wrote it
    trusted_keys = ["release.pub"]        # files, relative to this one; or the keys themselves
    device_class = "pi4"                  # optional; derived from the hardware if absent

    [measure]
    threads = 2

A relative path is relative to the configuration file. An unknown key is an error: a misspelt
setting must not be silently ignored.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trimtab_protocol.api import DeviceCredentials
from trimtab_protocol.base import Name, describe_validation_error
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.signing import decode_key, key_id_of

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover - Python 3.10 only
    import tomli as tomllib


METER_FILE = "meter.csv"
"""Below the state folder: what arrives on a meter's topic."""


class Section(BaseModel):
    """Frozen, and closed: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class MqttSettings(Section):
    """How to hold the connection.

    Args:
        keepalive_s: A broker that is silent for 1.5 times this long is taken for gone.
        protocol: "3.1.1" works with every broker; "5" where the broker speaks it.
        is_nodelay: TCP_NODELAY; without it the kernel holds small packets back for up to 40 ms.
        chunk_qos: 0 by design, see docs/protocol.md.
        reconnect_min_s, reconnect_max_s: Back-off, doubled at each failure.
        first_connect_timeout_s: A device that has never been connected gives up after this time
            and says why, so that a wrong host name does not go unnoticed; 0 for never.
        tls_ca: CA file; TLS is used exactly when it is set.
    """

    keepalive_s: Annotated[int, Field(ge=2, le=3600)] = 30
    protocol: Annotated[str, Field(pattern=r"^(3\.1\.1|5)$")] = "3.1.1"
    is_nodelay: bool = True
    chunk_qos: Annotated[int, Field(ge=0, le=1)] = 0
    reconnect_min_s: Annotated[float, Field(gt=0)] = 1.0
    reconnect_max_s: Annotated[float, Field(gt=0)] = 60.0
    first_connect_timeout_s: Annotated[float, Field(ge=0)] = 60.0
    tls_ca: str | None = None


class FetchSettings(Section):
    """Delivery.

    Args:
        window_chunks: Outstanding chunks to begin with.
        max_window_chunks: How far the window may grow on a link with a long round trip.
        chunk_timeout_s: An outstanding chunk is asked for again after this time.
        max_bad_chunks: So many chunks that fail their check at one index end the fetch.
        stall_timeout_s: Connected, and no good chunk for this long: the fetch fails.
    """

    window_chunks: Annotated[int, Field(ge=1, le=256)] = 8
    max_window_chunks: Annotated[int, Field(ge=1, le=512)] = 64
    chunk_timeout_s: Annotated[float, Field(gt=0)] = 5.0
    max_bad_chunks: Annotated[int, Field(ge=1)] = 3
    stall_timeout_s: Annotated[float, Field(gt=0)] = 600.0


class MeasureSettings(Section):
    """Measuring.

    Args:
        threads: Intra-operator threads of the runtime.
        is_spinning_allowed: Whether idle worker threads may spin; off by default, because spinning
            hides its cost in other processes and in energy.
        lock: Taken by whoever measures on this machine, so that two never measure at once.
        max_memory_bytes: Limit of a child's private memory (RLIMIT_DATA); 0 for three quarters of
            the machine's.
        max_job_s: A probe or trial that takes longer is killed. With an energy sensor, five windows of
            10 s for each of two models take about four minutes of it; windows that do not fit are
            left out.
        max_samples_bytes: Raw nanoseconds of the newest measurements are kept in the state folder,
            below `samples/`, up to this size; 0 for none.
    """

    threads: Annotated[int, Field(ge=1, le=256)] = 1
    is_spinning_allowed: bool = False
    affinity: tuple[Annotated[int, Field(ge=0)], ...] = ()
    lock: str = "/tmp/trimtab-measure.lock"  # noqa: S108 - one per machine, shared by all users
    max_memory_bytes: Annotated[int, Field(ge=0)] = 0
    max_job_s: Annotated[float, Field(gt=0)] = 900.0
    max_samples_bytes: Annotated[int, Field(ge=0)] = 8 * 1024 * 1024


class LocalSettings(Section):
    """The API for applications on this device, see docs/local-api.md.

    Args:
        socket: Path of the Unix socket; None for no API.
        mode: Permissions of the socket, in octal.
        group: Group of the socket, one that the agent is a member of; None for its own.
        max_hold_minutes: How long an application may hold updates without a pause.
    """

    socket: str | None = None
    mode: Annotated[str, Field(pattern=r"^0?[0-7]{3}$")] = "0660"
    group: str | None = None
    max_hold_minutes: Annotated[float, Field(gt=0, le=1440)] = 60.0


class MeterSettings(Section):
    """A power meter outside of the device, in the place of the device's own sensor.

    Args:
        file: Lines of (time, watts) that some program appends, see energy/external.py; with a topic
            the agent writes it itself, into the state folder if no file is named.
        topic: MQTT topic on which the meter publishes.
        field: Where a JSON payload holds the watts, such as "ENERGY.Power"; None for a bare number.
        broker: "host:port" of the meter's broker; None for the agent's own, and its user.
        username, password: For `broker`.
    """

    file: str | None = None
    topic: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^+#]*$")] | None = None
    field: Annotated[str, Field(min_length=1)] | None = None
    broker: Annotated[str, Field(pattern=r"^\S+:[0-9]{1,5}$")] | None = None
    username: str | None = None
    password: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> MeterSettings:
        if self.file is None and self.topic is None:
            raise ValueError("name the meter's file, or its topic")
        if self.topic is None and (self.field or self.broker):
            raise ValueError("field and broker belong to a topic, and there is none")
        if self.broker is None and self.username is not None:
            raise ValueError("username and password belong to a broker, and there is none")
        if self.username is None and self.password is not None:
            raise ValueError("a password belongs to a username, and there is none")
        if self.broker is not None and not 0 < self.address[1] < 65536:
            raise ValueError(f"the port of broker {self.broker} does not lie in 1 to 65535")
        return self

    @property
    def path(self) -> Path:
        """The file, once the settings are loaded."""
        return Path(self.file or METER_FILE)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `broker`; of use only where there is one."""
        host, _, port = (self.broker or "").rpartition(":")
        return host, int(port)


class AgentConfig(Section):
    """Everything that an agent is told.

    Args:
        reserve_disk_bytes: Stays free on the file system, whatever arrives.
        max_payload_cache_bytes: What may stay on disk of payloads that nothing uses.
        max_store_bytes: What the whole state folder may take; 0 for no quota. What nothing uses
            gives way, then an artifact without room is refused with `rejected.disk`.
        hooks_dir: Folder with hooks, see docs/architecture.md; None for no hooks.
        max_hook_s: A hook that takes longer is killed, and has said no.
    """

    state_dir: str
    credentials: str
    trusted_keys: Annotated[tuple[str, ...], Field(min_length=1)]
    device_class: Name | None = None
    reserve_disk_bytes: Annotated[int, Field(ge=0)] = 64 * 1024 * 1024
    max_payload_cache_bytes: Annotated[int, Field(ge=0)] = 512 * 1024 * 1024
    max_store_bytes: Annotated[int, Field(ge=0)] = 0
    hooks_dir: str | None = None
    max_hook_s: Annotated[float, Field(gt=0, le=86400)] = 300.0
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    mqtt: MqttSettings = MqttSettings()
    fetch: FetchSettings = FetchSettings()
    measure: MeasureSettings = MeasureSettings()
    local: LocalSettings = LocalSettings()
    meter: MeterSettings | None = None


class LoadedConfig(Section):
    """The settings with everything read that they point to."""

    config: AgentConfig
    folder: Path
    credentials: DeviceCredentials
    trusted_keys: dict[str, bytes]

    @property
    def state_dir(self) -> Path:
        """Where the store lives."""
        return self.folder / self.config.state_dir


def load_config(path: Path) -> LoadedConfig:
    """Read and check the settings and the files they name.

    Raises:
        ConfigError: Names the file, the key and what was found.
    """
    folder = path.resolve().parent
    config = _resolve_paths(_parse(path), folder)
    return LoadedConfig(
        config=config,
        folder=folder,
        credentials=_load_credentials(folder / config.credentials),
        trusted_keys=dict(_load_key(folder, text) for text in config.trusted_keys),
    )


def _read(path: Path, what: str, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(
            f"{what} {path} does not exist: {remedy}", code=ErrorCode.CONFIG_MISSING
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} cannot be read: {error}") from error


def _parse(path: Path) -> AgentConfig:
    text = _read(path, "configuration", "see docs/architecture.md for the shortest one that works")
    try:
        return AgentConfig.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration {path} is not TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(f"configuration {path}: {describe_validation_error(error)}") from error


def _resolve_paths(config: AgentConfig, folder: Path) -> AgentConfig:
    mqtt, measure = config.mqtt, config.measure
    if mqtt.tls_ca is not None:
        mqtt = mqtt.model_copy(update={"tls_ca": str(folder / mqtt.tls_ca)})
    measure = measure.model_copy(update={"lock": str(folder / measure.lock)})
    changes = {
        "mqtt": mqtt,
        "measure": measure,
        "meter": _meter(config, folder),
        "hooks_dir": _hooks_dir(config, folder),
    }
    return config.model_copy(update=changes)


def _meter(config: AgentConfig, folder: Path) -> MeterSettings | None:
    if config.meter is None:
        return None
    name = config.meter.file or f"{config.state_dir}/{METER_FILE}"
    return config.meter.model_copy(update={"file": str(folder / name)})


def _hooks_dir(config: AgentConfig, folder: Path) -> str | None:
    """A folder that is misspelt must not silently mean that nobody is asked."""
    if config.hooks_dir is None:
        return None
    path = folder / config.hooks_dir
    if not path.is_dir():
        raise ConfigError(
            f"hooks_dir {path} is no folder: make it, or take the key out",
            code=ErrorCode.CONFIG_MISSING,
        )
    return str(path)


def _load_credentials(path: Path) -> DeviceCredentials:
    text = _read(path, "credentials", "write them with `trimtab-deploy device add NAME --out FILE`")
    try:
        return DeviceCredentials.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"credentials {path}: {describe_validation_error(error)}") from error


def _load_key(folder: Path, text: str) -> tuple[str, bytes]:
    is_file = not _is_key(text) and (text.endswith(".pub") or os.sep in text)
    source = (
        _read(folder / text, "trusted key", "copy the public half, NAME.pub") if is_file else text
    )
    try:
        key = decode_key(source)
    except ConfigError as error:
        raise ConfigError(f"trusted_keys {text[:60]!r}: {error.message}") from error
    return key_id_of(key), key


def _is_key(text: str) -> bool:
    """Base64 uses "/" too, so a slash alone does not make a path."""
    try:
        decode_key(text)
    except ConfigError:
        return False
    return True
