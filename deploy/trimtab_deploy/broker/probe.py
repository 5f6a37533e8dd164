"""Ask a broker with one MQTT 3.1.1 CONNECT whether it is up and whether a login is good.

A broker that was told of a new device by a signal takes it up a moment later. Whoever waits for
that moment asks here.
"""

from __future__ import annotations

import asyncio

from trimtab_deploy.broker.port import Login

CONNACK_BYTES = 4
DISCONNECT = b"\xe0\x00"


async def can_log_in(host: str, port: int, login: Login, timeout_s: float = 2.0) -> bool:
    """Whether the broker accepts the login now; False too when nobody listens."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_connect_packet(login))
                answer = await reader.readexactly(CONNACK_BYTES)
                writer.write(DISCONNECT)
                await writer.drain()
            finally:
                writer.close()
    except (OSError, asyncio.IncompleteReadError, TimeoutError):
        return False
    return answer[0] == 0x20 and answer[3] == 0


async def wait_until_can_log_in(host: str, port: int, login: Login, timeout_s: float) -> bool:
    """Ask again every 20 ms until the login is accepted or the time is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while loop.time() < deadline:
        if await can_log_in(host, port, login):
            return True
        await asyncio.sleep(0.02)
    return False


def _connect_packet(login: Login) -> bytes:
    """CONNECT with a clean session (MQTT 3.1.1, section 3.1)."""
    fields = (login.username, login.username, login.password)
    payload = b"".join(len(text.encode()).to_bytes(2, "big") + text.encode() for text in fields)
    body = b"\x00\x04MQTT\x04\xc2\x00\x0a" + payload
    return b"\x10" + _varint(len(body)) + body


def _varint(length: int) -> bytes:
    encoded = bytearray()
    while True:
        length, low = divmod(length, 128)
        encoded.append(low | (0x80 if length else 0))
        if not length:
            return bytes(encoded)
