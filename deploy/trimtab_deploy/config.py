"""Settings of the control plane: defaults, a TOML file, then the command line.

site = "default"
http_host = "127.0.0.1"
http_port = 8080                 # 0: a free one
mqtt_host = "127.0.0.1"
mqtt_port = 1883                 # 0: a free one
broker = "auto"                  # mosquitto, amqtt, external
advertised_mqtt_host = "..."     # what devices are told, if not mqtt_host
max_payload_bytes = 1073741824
trusted_keys = ["base64 ..."]    # then an artifact must be signed by one of them

[external]                       # for broker = "external"
host = "..."
port = 8883
username = "..."
password = "..."
mqtt5 = true
ca_file = "/etc/ssl/..."
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any, Literal

import tomllib
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trimtab_deploy.broker.port import BrokerAddress, Login
from trimtab_protocol.base import Name, describe_validation_error
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.manifest import MAX_PAYLOAD_BYTES
from trimtab_protocol.signing import decode_key, key_id_of

Port = Annotated[int, Field(ge=0, le=65535)]
WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - recognised, not listened on


class ExternalSettings(BaseModel):
    """A broker that somebody else runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    username: str | None = None
    password: str = ""
    mqtt5: bool = True
    ca_file: str | None = None

    def address(self) -> BrokerAddress:
        """The broker as the port knows it."""
        login = None if self.username is None else Login(self.username, self.password)
        return BrokerAddress(
            self.host, self.port, login, speaks_mqtt5=self.mqtt5, ca_file=self.ca_file
        )


class Settings(BaseModel):
    """Everything that can be set; see the module."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    site: Name = "default"
    http_host: str = "127.0.0.1"
    http_port: Port = 8080
    mqtt_host: str = "127.0.0.1"
    mqtt_port: Port = 1883
    broker: Literal["auto", "mosquitto", "amqtt", "external"] = "auto"
    advertised_mqtt_host: str | None = None
    max_payload_bytes: Annotated[int, Field(ge=1, le=MAX_PAYLOAD_BYTES)] = MAX_PAYLOAD_BYTES
    trusted_keys: list[str] = Field(default_factory=list)
    external: ExternalSettings | None = None

    def keys(self) -> dict[str, bytes]:
        """Trusted public keys by their id.

        Raises:
            ConfigError: One is not a key.
        """
        decoded = [decode_key(text) for text in self.trusted_keys]
        return {key_id_of(key): key for key in decoded}

    def device_mqtt_host(self) -> str:
        """The host name that devices are told."""
        if self.advertised_mqtt_host is not None:
            return self.advertised_mqtt_host
        if self.broker == "external" and self.external is not None:
            return self.external.host
        return socket.getfqdn() if self.mqtt_host in WILDCARDS else self.mqtt_host


def load_settings(path: Path | None, overrides: dict[str, Any]) -> Settings:
    """Read the settings.

    Args:
        path: The TOML file; None for defaults.
        overrides: From the command line; a value of None does not override.

    Raises:
        ConfigError: The file cannot be read, or a key in it is unknown or wrong; the message names
            the file and the key.
    """
    found = {} if path is None else _read_toml(path)
    _build(found, where=str(path))
    chosen = {key: value for key, value in overrides.items() if value is not None}
    settings = _build({**found, **chosen}, where="command line")
    settings.keys()
    return settings


def _build(values: dict[str, Any], *, where: str) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {describe_validation_error(error)}") from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", code=ErrorCode.CONFIG_MISSING
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
