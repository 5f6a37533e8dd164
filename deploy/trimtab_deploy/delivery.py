"""Chunks to devices: each device is served in order, all devices beside each other.

Rules:
    1. A device gets chunks only of payloads that it is entitled to: of its desired state, or of a
       trial that it was asked for. Everything else, and a chunk that cannot be read, is answered
       with an empty chunk, which means "not here".
    2. A chunk that is waiting to be sent is not queued twice; a queue is bounded, and what does not
       fit is dropped: the device asks again for what does not arrive.
    3. One chunk at a time is in memory per device, and not more than the publisher lets through.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing

from trimtab_deploy.mqtt import Publisher
from trimtab_deploy.payloads import ChunkReader, PayloadStore
from trimtab_protocol.messages import Get
from trimtab_protocol.topics import chunk_topic

MAX_QUEUED_CHUNKS = 4096
Wanted = tuple[str, int, int]  # digest, chunk_bytes, index


class Delivery:
    """Serves `get` messages.

    Args:
        site: Site of the topics.
        payloads: Where the files are.
        publisher: Where chunks go.
        may_fetch: Asked with a device and a digest.
        qos: Of the chunks. 0 is right: the chunk is its own acknowledgement, and a broker must not
            queue chunks for a device that is away.
    """

    def __init__(
        self,
        *,
        site: str,
        payloads: PayloadStore,
        publisher: Publisher,
        may_fetch: Callable[[str, str], Awaitable[bool]],
        qos: int = 0,
    ) -> None:
        self._site = site
        self._payloads = payloads
        self._publisher = publisher
        self._may_fetch = may_fetch
        self._qos = qos
        self._queues: dict[str, dict[Wanted, None]] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self.counts: Counter[str] = Counter()

    def request(self, device: str, get: Get) -> None:
        """Queue what a device asked for and see to it that somebody serves it."""
        queue = self._queues.setdefault(device, {})
        for index in get.indices:
            if len(queue) >= MAX_QUEUED_CHUNKS:
                self.counts["over_queue"] += 1
                break
            queue.setdefault((get.sha256, get.chunk_bytes, index))
        if device not in self._workers:
            worker = asyncio.create_task(self._serve(device))
            self._workers[device] = worker
            worker.add_done_callback(lambda _: self._workers.pop(device, None))

    async def close(self) -> None:
        """Stop serving."""
        workers = list(self._workers.values())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _serve(self, device: str) -> None:
        queue = self._queues[device]
        while queue:
            sha256 = next(iter(queue))[0]
            reader = await self._open(device, sha256)
            if reader is None:
                await self._send_payload(device, queue, sha256, None)
                continue
            with closing(reader):
                await self._send_payload(device, queue, sha256, reader)
        del self._queues[device]

    async def _open(self, device: str, sha256: str) -> ChunkReader | None:
        if not await self._may_fetch(device, sha256):
            self.counts["not_entitled"] += 1
            return None
        return self._payloads.open_chunks(sha256)

    async def _send_payload(
        self, device: str, queue: dict[Wanted, None], sha256: str, reader: ChunkReader | None
    ) -> None:
        """Send the chunks of one payload for as long as they are next in the queue."""
        while queue:
            wanted = next(iter(queue))
            if wanted[0] != sha256:
                return
            del queue[wanted]
            _, chunk_bytes, index = wanted
            chunk = b""
            if reader is not None:
                chunk = await asyncio.to_thread(reader.read, index, chunk_bytes)
            topic = chunk_topic(self._site, device, sha256, index)
            self._publisher.publish(topic, chunk, qos=self._qos)
            self.counts["sent" if chunk else "empty"] += 1
            await self._publisher.drain()
