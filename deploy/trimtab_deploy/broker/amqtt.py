"""amqtt inside this process: pure Python, MQTT 3.1.1, for a desk and a demo, not for a fleet.

It has no memory: retained messages and sessions are gone when the process ends. The control plane
publishes every desired state again when it starts, and devices send their birth at every connect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from amqtt.errors import AMQTTError, BrokerError

from trimtab_deploy.broker.acl import CONTROL_PLANE_USER, may_read, may_write
from trimtab_deploy.broker.amqtt_guarded import GuardedServer, Rules
from trimtab_deploy.broker.port import BrokerAddress, Login
from trimtab_deploy.passwords import is_password, make_password, make_verifier
from trimtab_protocol.errors import ConfigError

STOP_TIMEOUT_S = 5.0


class AmqttBroker:
    """Runs amqtt in the running event loop.

    Args:
        host: Address to listen on.
        port: Port to listen on.
        site: Site whose topics are allowed.
        verifiers: Password verifiers of the devices known so far.
    """

    product = "amqtt"

    def __init__(self, *, host: str, port: int, site: str, verifiers: Mapping[str, str]) -> None:
        own = Login(CONTROL_PLANE_USER, make_password())
        self._site = site
        self._verifiers = {**verifiers, own.username: make_verifier(own.password)}
        self.address = BrokerAddress(host, port, own, speaks_mqtt5=False)
        self._server: GuardedServer | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: The port is taken.
        """
        _quieten("amqtt", "transitions")
        rules = Rules(
            may_log_in=self._may_log_in,
            may_write=lambda user, topic: may_write(self._site, user, topic),
            may_read=lambda user, topic: may_read(self._site, user, topic),
        )
        server = GuardedServer(self.address.host, self.address.port, rules)
        try:
            await server.start()
        except (AMQTTError, BrokerError, OSError) as error:
            raise ConfigError(
                f"the broker cannot listen on {self.address.host}:{self.address.port}: {error}"
            ) from error
        self._server = server

    async def admit(self, device: str, verifier: str) -> None:
        """Let one more device log in."""
        self._verifiers[device] = verifier

    async def stop(self) -> None:
        """Close every connection and stop listening."""
        if self._server is not None:
            server, self._server = self._server, None
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await server.shutdown()
            except TimeoutError:
                logging.getLogger("trimtab.deploy.broker").warning("amqtt did not stop in time")

    def _may_log_in(self, username: str, password: str) -> bool:
        verifier = self._verifiers.get(username)
        return verifier is not None and is_password(password, verifier)


def _quieten(*loggers: str) -> None:
    """Amqtt logs every refused login with a trace; what matters is counted elsewhere."""
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
