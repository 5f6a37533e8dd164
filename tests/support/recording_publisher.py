"""A publisher that keeps what it is given."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One message."""

    topic: str
    payload: bytes
    qos: int
    is_retained: bool


class RecordingPublisher:
    """In place of the MQTT session. `is_connected = False` makes it refuse."""

    def __init__(self) -> None:
        self.sent: list[Published] = []
        self.is_connected = True

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, is_retained: bool = False
    ) -> bool:
        if self.is_connected:
            self.sent.append(Published(topic, payload, qos, is_retained))
        return self.is_connected

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def on(self, leaf: str) -> list[Published]:
        """Messages whose topic ends with a leaf."""
        return [row for row in self.sent if row.topic.endswith(f"/{leaf}")]
