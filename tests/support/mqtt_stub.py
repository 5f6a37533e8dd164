"""A broker of a hundred lines, for one client at a time: says yes or no, remembers what it was told.

It speaks as much of MQTT 3.1.1 and 5 as the agent's link uses, so that a test of the link needs no
process and can look at what a real broker would hide: the will, the session flag, the goodbye.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = (
    1, 2, 3, 4, 8, 9, 12, 13, 14,
)  # fmt: skip


@dataclass
class Client:
    """What one connection said."""

    connect: bytes = b""
    subscriptions: list[tuple[str, int]] = field(default_factory=list)
    published: list[tuple[str, bytes, int, bool]] = field(default_factory=list)
    is_orderly: bool = False
    is_over: bool = False

    @property
    def is_clean(self) -> bool:
        return bool(self.connect[7] & 0x02)

    @property
    def level(self) -> int:
        return self.connect[6]

    @property
    def keepalive_s(self) -> int:
        return int.from_bytes(self.connect[8:10], "big")


class MqttStub:
    """Listens on a free port; `reason` other than 0 refuses, and may refuse only to subscribe."""

    def __init__(self, reason: int = 0, *, may_subscribe: bool = True) -> None:
        self.reason = reason
        self._may_subscribe = may_subscribe
        self.clients: list[Client] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, topic: str, payload: bytes) -> None:
        """Publish to the client at QoS 0."""
        name = topic.encode()
        assert self._connection is not None
        self._connection.sendall(_packet(PUBLISH, struct.pack("!H", len(name)) + name + payload))

    def drop(self) -> None:
        """Cut the connection."""
        assert self._connection is not None
        self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        if self._connection is not None:
            self._connection.close()
        self._thread.join(5)

    def wait_for(self, what: str, is_so: Callable[[], bool], timeout_s: float = 10.0) -> None:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if is_so():
                return
            time.sleep(0.01)
        raise AssertionError(f"never: {what}; {self.clients}")

    def _serve(self) -> None:
        while True:
            try:
                self._connection, _ = self._server.accept()
            except OSError:
                return
            client = Client()
            with contextlib.suppress(OSError, EOFError):
                self._talk(self._connection, client)
            client.is_over = True
            self._connection.close()

    def _talk(self, connection: socket.socket, client: Client) -> None:
        while True:
            first = _read(connection, 1)[0]
            body = _read(connection, _read_length(connection))
            kind, flags = first >> 4, first & 0x0F
            if kind == CONNECT:
                client.connect = body
                self.clients.append(client)
                connection.sendall(_packet(CONNACK, bytes([0, self.reason]) + self._none(client)))
            elif kind == SUBSCRIBE:
                client.subscriptions += _filters(body, client.level)
                granted = [qos for _, qos in _filters(body, client.level)]
                codes = bytes(qos if self._may_subscribe else 0x80 for qos in granted)
                connection.sendall(_packet(SUBACK, body[:2] + self._none(client) + codes))
            elif kind == PUBLISH:
                self._on_publish(connection, client, flags, body)
            elif kind == PINGREQ:
                connection.sendall(_packet(PINGRESP, b""))
            elif kind == DISCONNECT:
                client.is_orderly = True
                return

    def _on_publish(
        self, connection: socket.socket, client: Client, flags: int, body: bytes
    ) -> None:
        end = 2 + int.from_bytes(body[:2], "big")
        topic, rest, qos = body[2:end].decode(), body[end:], flags >> 1 & 3
        if qos:
            connection.sendall(_packet(PUBACK, rest[:2]))
            rest = rest[2:]
        payload = rest[1:] if client.level == 5 else rest  # no properties are ever sent
        client.published.append((topic, payload, qos, bool(flags & 1)))

    @staticmethod
    def _none(client: Client) -> bytes:
        return b"\0" if client.level == 5 else b""


def _filters(body: bytes, level: int) -> list[tuple[str, int]]:
    rows, at = [], 3 if level == 5 else 2
    while at < len(body):
        end = at + 2 + int.from_bytes(body[at : at + 2], "big")
        rows.append((body[at + 2 : end].decode(), body[end] & 3))
        at = end + 1
    return rows


def _packet(kind: int, body: bytes) -> bytes:
    length, head = len(body), bytearray([kind << 4])
    while True:
        length, digit = divmod(length, 128)
        head.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(head) + body


def _read_length(connection: socket.socket) -> int:
    value = shift = 0
    while True:
        byte = _read(connection, 1)[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value


def _read(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = connection.recv(count - len(found))
        if not part:
            raise EOFError
        found += part
    return found
