"""The port to a broker that this control plane runs or uses.

Rules that every embedded broker keeps (one contract suite proves them):
    1. Nobody logs in without the password of a known device.
    2. The MQTT client id is the user name, whatever the client says; so nobody can take over the
       session of another.
    3. A device publishes and receives what `acl` allows, and nothing else.
    4. A device that was added while the broker runs can log in when `admit` has returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Login:
    """A user name and its password."""

    username: str
    password: str


@dataclass(frozen=True)
class BrokerAddress:
    """Where a broker listens, and how the control plane logs in there."""

    host: str
    port: int
    login: Login | None
    speaks_mqtt5: bool
    ca_file: str | None = None


class Broker(Protocol):
    """A broker that is started, told about devices, and stopped."""

    @property
    def product(self) -> str:
        """`mosquitto`, `amqtt` or `external`."""

    @property
    def address(self) -> BrokerAddress:
        """Where it listens; known before it is started."""

    async def start(self) -> None:
        """Start it and return when it takes connections.

        Raises:
            ConfigError: The port is taken, or the program cannot be run.
        """

    async def admit(self, device: str, verifier: str) -> None:
        """Let one more device log in, by the verifier of its password (see `passwords`).

        Raises:
            StorageError: The credentials could not be written.
            TransientError: The broker did not take them up in time.
        """

    async def stop(self) -> None:
        """Stop it and leave no process behind."""
