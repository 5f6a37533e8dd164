"""The control plane's MQTT session (gmqtt): kept up with backoff, subscribed, never in the way.

Rules:
    1. Every connection is a fresh client with the same id and a persistent session, so what the
       broker queued for us arrives; what we had not sent is sent again by those who own it.
    2. Nothing is queued here while there is no connection: `publish` says so, and `on_ready`
       tells when to publish again what must be known.
    3. MQTT 5 where the broker speaks it, else 3.1.1. TCP_NODELAY is on (asyncio's default).
    4. No exception of gmqtt leaves this module.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.mqtt.handler import MQTTConnectError

from trimtab_deploy.broker.port import BrokerAddress

LOG = logging.getLogger("trimtab.deploy.mqtt")
CONNECT_TIMEOUT_S = 10.0
KEEPALIVE_S = 30
SESSION_EXPIRY_S = 86400
MIN_DELAY_S, MAX_DELAY_S = 0.1, 15.0
HIGH_WATER_BYTES = 4 * 1024 * 1024
NEVER_RECONNECT = -2  # gmqtt: below every number of failed connections; -1 is "for ever"


@dataclass(frozen=True)
class Incoming:
    """A message as it came."""

    topic: str
    payload: bytes
    is_retained: bool


class Publisher(Protocol):
    """What the rest of the control plane needs to send messages."""

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, is_retained: bool = False
    ) -> bool:
        """Send a message; False if there is no connection (nothing is kept)."""

    async def drain(self) -> None:
        """Wait until what was published has mostly left, so that memory stays bounded."""


class MqttSession:
    """A session that is always being kept up by `run`.

    Args:
        address: The broker.
        client_id: Stays the same over restarts, so that the session does.
        filters: Subscribed at QoS 1 at every connection.
        on_message: Called for every message, in the event loop; must not block.
        on_ready: Called after every connection, once the subscriptions stand.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        filters: Sequence[str],
        *,
        on_message: Callable[[Incoming], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._address = address
        self._client_id = client_id
        self._filters = tuple(filters)
        self._on_message = on_message
        self._on_ready = on_ready
        self._client: Any = None
        self._lost = asyncio.Event()
        self.is_ready = asyncio.Event()
        for name in ("gmqtt", "gmqtt.client", "gmqtt.mqtt"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    async def run(self) -> None:
        """Keep the session up until cancelled."""
        delay_s = MIN_DELAY_S
        while True:
            problem = await self._connect()
            if problem is None:
                delay_s = MIN_DELAY_S
                await self._lost.wait()
                problem = "connection lost"
            self.is_ready.clear()
            self._client = None
            LOG.warning("broker %s:%s: %s", self._address.host, self._address.port, problem)
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            delay_s = min(delay_s * 2, MAX_DELAY_S)

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, is_retained: bool = False
    ) -> bool:
        """Send a message; False if there is no connection."""
        if self._client is None or self._lost.is_set():
            return False
        try:
            self._client.publish(topic, payload, qos=qos, retain=is_retained)
        except (OverflowError, ValueError, OSError) as error:  # no free message id; too large
            LOG.warning("cannot publish on %s: %s", topic, error)
            return False
        return True

    async def drain(self) -> None:
        """Yield, and wait while more than HIGH_WATER_BYTES have not left this process."""
        await asyncio.sleep(0)
        while self._unsent_bytes() > HIGH_WATER_BYTES:
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Say goodbye to the broker, if it listens."""
        client, self._client = self._client, None
        if client is not None:
            await self._goodbye(client)

    async def _connect(self) -> str | None:
        """One attempt; None when subscribed, else what went wrong."""
        self._lost = asyncio.Event()
        client = self._make_client(self._lost)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await client.connect(
                    self._address.host,
                    self._address.port,
                    ssl=self._tls(),
                    keepalive=KEEPALIVE_S,
                    version=MQTTv50 if self._address.speaks_mqtt5 else MQTTv311,
                )
        except (OSError, TimeoutError, MQTTConnectError) as error:
            await self._goodbye(client)
            return str(error) or type(error).__name__
        self._client = client
        client.subscribe([gmqtt.Subscription(row, qos=1) for row in self._filters])
        return None

    def _make_client(self, lost: asyncio.Event) -> Any:
        properties = {}
        if self._address.speaks_mqtt5:
            properties["session_expiry_interval"] = SESSION_EXPIRY_S
        client = gmqtt.Client(self._client_id, clean_session=False, **properties)
        client.set_config({"reconnect_retries": NEVER_RECONNECT})
        if self._address.login is not None:
            client.set_auth_credentials(self._address.login.username, self._address.login.password)
        client.on_message = self._receive
        client.on_subscribe = self._subscribed
        client.on_disconnect = lambda *_: lost.set()
        return client

    def _receive(
        self, _client: object, topic: str, payload: bytes, _qos: int, properties: dict[str, Any]
    ) -> int:
        self._on_message(Incoming(topic, bytes(payload), bool(properties.get("retain"))))
        return 0

    def _subscribed(self, *_: object) -> None:
        if not self.is_ready.is_set():
            self.is_ready.set()
            self._on_ready()

    def _tls(self) -> ssl.SSLContext | bool:
        if self._address.ca_file is None:
            return False
        return ssl.create_default_context(cafile=self._address.ca_file)

    def _unsent_bytes(self) -> int:
        # gmqtt offers no back-pressure: ask its transport.
        connection = getattr(self._client, "_connection", None)
        transport = getattr(connection, "_transport", None)
        return 0 if transport is None else int(transport.get_write_buffer_size())

    @staticmethod
    async def _goodbye(client: Any) -> None:
        try:
            async with asyncio.timeout(2.0):
                await client.disconnect()
        except (OSError, TimeoutError, AttributeError):  # it was never connected
            LOG.debug("no goodbye")
