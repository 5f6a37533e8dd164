"""The connection to the broker, by paho-mqtt. Its network thread only puts events on a queue.

TCP_NODELAY is set on every socket: neither paho nor a broker's defaults do it, and the kernel then
holds small packets back until the peer's delayed acknowledgement. The session is persistent, so
that what is sent at QoS 1 while the device is away arrives when it is back.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from trimtab_agent.config import MqttSettings
from trimtab_agent.events import Connected, Disconnected, Event, Received
from trimtab_protocol.api import DeviceCredentials
from trimtab_protocol.errors import ConfigError

SESSION_EXPIRY_S = 7 * 86400
MAX_QUEUED_MESSAGES = 1000


@dataclass(frozen=True)
class Subscription:
    """One topic filter and the highest QoS wanted for it."""

    topic: str
    qos: int


@dataclass(frozen=True)
class Will:
    """What the broker says for us when we vanish."""

    topic: str
    payload: bytes


class Link(Protocol):
    """A connection that restores itself."""

    def open(self) -> None:
        """Begin to connect; Connected or Disconnected events follow for as long as it is open."""

    def publish(self, topic: str, payload: bytes, *, qos: int, is_retained: bool) -> None:
        """Send a message; while disconnected it is dropped, for the caller repeats what matters."""

    def close(self, goodbye: tuple[str, bytes] | None) -> None:
        """Send a last retained message and disconnect in order."""


class PahoLink:
    """The real one.

    Args:
        credentials: Where to connect and as whom.
        settings: How.
        subscriptions: Made at every connect.
        will: Retained, at QoS 1.
        put_event: Called from paho's thread.
    """

    def __init__(
        self,
        credentials: DeviceCredentials,
        settings: MqttSettings,
        subscriptions: tuple[Subscription, ...],
        will: Will,
        put_event: Callable[[Event], None],
    ) -> None:
        self._credentials = credentials
        self._settings = settings
        self._subscriptions = subscriptions
        self._put_event = put_event
        self._client = self._make_client()
        self._client.will_set(will.topic, will.payload, qos=1, retain=True)

    def open(self) -> None:
        """Start paho's thread; it connects, and connects again with back-off and jitter."""
        host, port = self._credentials.mqtt_host, self._credentials.mqtt_port
        keepalive_s = self._settings.keepalive_s
        if self._is_mqtt5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_EXPIRY_S
            self._client.connect_async(
                host, port, keepalive_s, clean_start=False, properties=properties
            )
        else:
            self._client.connect_async(host, port, keepalive_s)
        self._client.loop_start()

    def publish(self, topic: str, payload: bytes, *, qos: int, is_retained: bool) -> None:
        """Send, if connected."""
        if self._client.is_connected():
            self._client.publish(topic, payload, qos=qos, retain=is_retained)

    def close(self, goodbye: tuple[str, bytes] | None) -> None:
        """Say goodbye (the will is not sent after an orderly disconnect) and end the thread."""
        if goodbye is not None and self._client.is_connected():
            sent = self._client.publish(goodbye[0], goodbye[1], qos=1, retain=True)
            # If the connection breaks just now, the broker sends the will instead.
            with contextlib.suppress(RuntimeError, ValueError):
                sent.wait_for_publish(2.0)
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def _is_mqtt5(self) -> bool:
        return self._settings.protocol == "5"

    def _make_client(self) -> paho.Client:
        protocol = MQTTProtocolVersion.MQTTv5 if self._is_mqtt5 else MQTTProtocolVersion.MQTTv311
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"trimtab-{self._credentials.device}",
            clean_session=None if self._is_mqtt5 else False,
            protocol=protocol,
        )
        client.username_pw_set(self._credentials.username, self._credentials.password)
        client.max_queued_messages_set(MAX_QUEUED_MESSAGES)
        jitter = random.uniform(1.0, 1.5)  # noqa: S311 - spreads a fleet's reconnects, no secret
        client.reconnect_delay_set(
            max(1, round(self._settings.reconnect_min_s * jitter)),
            max(1, round(self._settings.reconnect_max_s * jitter)),
        )
        if self._settings.tls_ca is not None:
            client.tls_set_context(make_tls_context(self._settings.tls_ca))
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        return client

    def _on_socket_open(self, _client: object, _userdata: object, sock: Any) -> None:
        if self._settings.is_nodelay:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(
        self, client: paho.Client, _userdata: object, _flags: object, reason: Any, _props: object
    ) -> None:
        if reason.is_failure:
            self._put_event(Disconnected(f"refused: {reason}", is_refused=True))
            return
        client.subscribe([(row.topic, row.qos) for row in self._subscriptions])
        self._put_event(Connected())

    def _on_connect_fail(self, _client: object, _userdata: object) -> None:
        host, port = self._credentials.mqtt_host, self._credentials.mqtt_port
        self._put_event(Disconnected(f"no answer from {host}:{port}"))

    def _on_disconnect(
        self, _client: object, _userdata: object, _flags: object, reason: Any, _props: object
    ) -> None:
        self._put_event(Disconnected(str(reason)))

    def _on_message(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        self._put_event(Received(message.topic, bytes(message.payload)))


def make_tls_context(ca_path: str) -> ssl.SSLContext:
    """TLS that trusts one CA file.

    Raises:
        ConfigError: The file cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=ca_path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"mqtt.tls_ca {ca_path} cannot be used: {error}") from error
