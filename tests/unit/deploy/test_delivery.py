from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.recording_publisher import RecordingPublisher
from trimtab_deploy import delivery as delivery_module
from trimtab_deploy.delivery import Delivery
from trimtab_deploy.payloads import PayloadStore
from trimtab_protocol.messages import Get
from trimtab_protocol.topics import ChunkTopic, parse_topic

BODY = os.urandom(5 * 1024 + 100)
DIGEST = hashlib.sha256(BODY).hexdigest()
OTHER = "f" * 64


class Counter:
    """Gives leave to the devices it knows, and remembers who asked."""

    def __init__(self, *entitled: str) -> None:
        self.entitled = entitled
        self.asked: list[tuple[str, str]] = []

    async def __call__(self, device: str, sha256: str) -> bool:
        self.asked.append((device, sha256))
        return device in self.entitled


def get(*indices: int, sha256: str = DIGEST) -> Get:
    return Get(sha256=sha256, chunk_bytes=1024, indices=indices)


async def make(
    folder: Path, may_fetch: Counter, **more: int
) -> tuple[Delivery, RecordingPublisher]:
    payloads = PayloadStore(folder, 1 << 20)

    async def pieces() -> AsyncIterator[bytes]:
        yield BODY

    await payloads.put(DIGEST, pieces())
    publisher = RecordingPublisher()
    delivery = Delivery(
        site="here", payloads=payloads, publisher=publisher, may_fetch=may_fetch, **more
    )
    return delivery, publisher


async def idle(delivery: Delivery) -> None:
    while delivery._workers:
        await asyncio.sleep(0.001)


def chunks(publisher: RecordingPublisher, device: str) -> list[tuple[int, bytes]]:
    found = []
    for row in publisher.sent:
        topic = parse_topic(row.topic)
        assert isinstance(topic, ChunkTopic)
        if topic.device == device:
            found.append((topic.index, row.payload))
    return found


def test_chunks_come_at_qos_0_in_the_order_they_were_asked_for(tmp_path: Path) -> None:
    async def story() -> None:
        delivery, publisher = await make(tmp_path, Counter("a"))
        delivery.request("a", get(2, 0, 5))
        await idle(delivery)
        assert chunks(publisher, "a") == [
            (2, BODY[2048:3072]),
            (0, BODY[:1024]),
            (5, BODY[5120:]),
        ]
        assert {(row.qos, row.is_retained) for row in publisher.sent} == {(0, False)}

    asyncio.run(story())


def test_the_qos_can_be_chosen(tmp_path: Path) -> None:
    async def story() -> None:
        delivery, publisher = await make(tmp_path, Counter("a"), qos=1)
        delivery.request("a", get(0))
        await idle(delivery)
        assert publisher.sent[0].qos == 1

    asyncio.run(story())


def test_who_is_not_entitled_gets_empty_chunks(tmp_path: Path) -> None:
    async def story() -> None:
        delivery, publisher = await make(tmp_path, Counter("a"))
        delivery.request("b", get(0, 1))
        await idle(delivery)
        assert chunks(publisher, "b") == [(0, b""), (1, b"")]
        assert delivery.counts["not_entitled"] == 1

    asyncio.run(story())


def test_a_payload_that_is_not_here_and_a_chunk_beyond_the_end_are_empty(tmp_path: Path) -> None:
    async def story() -> None:
        delivery, publisher = await make(tmp_path, Counter("a"))
        delivery.request("a", get(0, sha256=OTHER))
        delivery.request("a", get(6, 9_999_999))
        await idle(delivery)
        assert chunks(publisher, "a") == [(0, b""), (6, b""), (9_999_999, b"")]

    asyncio.run(story())


def test_what_waits_already_is_not_sent_twice(tmp_path: Path) -> None:
    async def story() -> None:
        delivery, publisher = await make(tmp_path, Counter("a"))
        for _ in range(3):
            delivery.request("a", get(0, 1, 2))
        await idle(delivery)
        assert [index for index, _ in chunks(publisher, "a")] == [0, 1, 2]
        delivery.request("a", get(0))
        await idle(delivery)
        assert [index for index, _ in chunks(publisher, "a")] == [0, 1, 2, 0]

    asyncio.run(story())


def test_devices_are_served_beside_each_other(tmp_path: Path) -> None:
    async def story() -> None:
        delivery, publisher = await make(tmp_path, Counter("a", "b"))
        delivery.request("a", get(*range(400)))
        delivery.request("b", get(0))
        await idle(delivery)
        names = [row.topic.split("/")[4] for row in publisher.sent]
        assert names.index("b") < 100

    asyncio.run(story())


def test_a_queue_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "MAX_QUEUED_CHUNKS", 10)

    async def story() -> None:
        delivery, publisher = await make(tmp_path, Counter("a"))
        delivery.request("a", get(*range(100)))
        await idle(delivery)
        assert len(publisher.sent) == 10
        assert delivery.counts["over_queue"] == 1

    asyncio.run(story())


def test_leave_is_asked_again_for_every_payload(tmp_path: Path) -> None:
    async def story() -> None:
        may_fetch = Counter("a")
        delivery, _ = await make(tmp_path, may_fetch)
        delivery.request("a", get(0))
        delivery.request("a", get(0, sha256=OTHER))
        await idle(delivery)
        assert may_fetch.asked == [("a", DIGEST), ("a", OTHER)]

    asyncio.run(story())


def test_closing_stops_in_the_middle(tmp_path: Path) -> None:
    async def story() -> None:
        delivery, publisher = await make(tmp_path, Counter("a"))
        delivery.request("a", get(*range(500)))
        while not publisher.sent:
            await asyncio.sleep(0)
        await delivery.close()
        await asyncio.sleep(0)
        assert not delivery._workers
        assert len(publisher.sent) < 500

    asyncio.run(story())
