"""What devices send: read, judged, remembered in batches, and only then acknowledged.

Rules:
    1. The sender is the device in the topic, which the broker's rules guard. [P-1.4]
    2. A message that is malformed, or of a device that nobody knows, is dropped and counted; the
       first of each kind from each device is logged.
    3. A report is acknowledged when the transaction that holds it is on disk; a repeat is
       acknowledged again and changes nothing. [P-4.4] One of a newer kind is counted and given up.
    4. When the database cannot be written, the batch is tried again: nothing is acknowledged, the
       devices keep their reports.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from trimtab_deploy.engine.status import take_progress, take_report
from trimtab_deploy.mqtt import Incoming, Publisher
from trimtab_deploy.store import deployments, devices, reports, trials
from trimtab_deploy.store.sqlite import Database
from trimtab_protocol.errors import ProtocolError, StorageError
from trimtab_protocol.messages import (
    Ack,
    Birth,
    DeploymentReport,
    EventReport,
    Get,
    Message,
    ReportBase,
    Reported,
    Status,
    TrialReport,
    encode,
    parse_message,
    parse_report,
)
from trimtab_protocol.topics import (
    DEVICE_WRITES,
    ChunkTopic,
    DeviceTopic,
    Leaf,
    device_topic,
    parse_topic,
)

LOG = logging.getLogger("trimtab.deploy.inbox")
MAX_BATCH = 256
MAX_WAITING = 100_000
RETRY_DELAY_S = 1.0
Parsed = Birth | Status | Reported | Get | TrialReport | DeploymentReport | EventReport

READERS: dict[Leaf, Callable[[bytes], Parsed]] = {
    Leaf.BIRTH: lambda payload: parse_message(Birth, payload),
    Leaf.STATUS: lambda payload: parse_message(Status, payload),
    Leaf.REPORTED: lambda payload: parse_message(Reported, payload),
    Leaf.GET: lambda payload: parse_message(Get, payload),
    Leaf.REPORT: parse_report,
}


@dataclass(frozen=True)
class Heard:
    """A message that was understood."""

    device: str
    message: Parsed
    is_retained: bool


@dataclass
class Effects:
    """What a remembered batch asks for."""

    acks: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    born: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)


class Inbox:
    """Takes messages from the MQTT session and works them off.

    Args:
        site: Site of the topics; messages of another one are dropped.
        database: Where it is remembered.
        publisher: Where acknowledgements go.
        clock: Unix time in seconds.
        on_get: Called with a device and what it asks for.
        on_birth: Called with a device that has (re)connected.
        on_change: Called after something was remembered.
    """

    def __init__(
        self,
        *,
        site: str,
        database: Database,
        publisher: Publisher,
        clock: Callable[[], float],
        on_get: Callable[[str, Get], None],
        on_birth: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self._site = site
        self._database = database
        self._publisher = publisher
        self._clock = clock
        self._on_get = on_get
        self._on_birth = on_birth
        self._on_change = on_change
        self._waiting: asyncio.Queue[Incoming] = asyncio.Queue()
        self._complained: set[tuple[str, str]] = set()
        self.dropped: Counter[str] = Counter()

    def put(self, incoming: Incoming) -> None:
        """Take a message; drops it when far too many wait (devices repeat what matters)."""
        if self._waiting.qsize() >= MAX_WAITING:
            self._drop("overload", "", "too many messages wait")
        else:
            self._waiting.put_nowait(incoming)

    async def run(self) -> None:
        """Work off what comes until cancelled."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < MAX_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            await self.handle(batch)

    async def handle(self, batch: list[Incoming]) -> None:
        """Remember one batch, then act on it."""
        heard = [row for row in map(self._read, batch) if row is not None]
        wanted = [row for row in heard if isinstance(row.message, Get)]
        news = [row for row in heard if not isinstance(row.message, Get)]
        if news:
            self._act(await self._remember(news))
        for row in wanted:
            assert isinstance(row.message, Get)
            self._on_get(row.device, row.message)

    async def _remember(self, news: list[Heard]) -> Effects:
        now = self._clock()
        while True:
            try:
                return await self._database.run(lambda connection: remember(connection, news, now))
            except StorageError as error:
                LOG.error("%s; trying again in %s s", error, RETRY_DELAY_S)
                await asyncio.sleep(RETRY_DELAY_S)

    def _act(self, effects: Effects) -> None:
        for device, report_ids in effects.acks.items():
            topic = device_topic(self._site, device, Leaf.ACK)
            self._publisher.publish(topic, encode(Ack(report_ids=tuple(report_ids))))
        for device in effects.unknown:
            self._drop("unknown_device", device, "nobody knows this device")
        for device in effects.born:
            self._on_birth(device)
        self._on_change()

    def _read(self, incoming: Incoming) -> Heard | None:
        device = ""
        try:
            topic = parse_topic(incoming.topic)
            device = topic.device
            leaf = self._leaf_of(topic)
            if not incoming.payload and incoming.is_retained:
                return None  # somebody cleared a retained message
            return Heard(device, READERS[leaf](incoming.payload), incoming.is_retained)
        except ProtocolError as error:
            self._drop(error.code.value, device, error.message)
            self._give_up(incoming)
            return None

    def _give_up(self, incoming: Incoming) -> None:
        """Acknowledge a report of a newer kind, or its device would repeat it for ever. [P-4.10]"""
        try:
            topic = parse_topic(incoming.topic)
            if not isinstance(topic, DeviceTopic) or self._leaf_of(topic) is not Leaf.REPORT:
                return
            report_id = parse_message(ReportBase, incoming.payload).report_id
        except ProtocolError:
            return
        ack_topic = device_topic(self._site, topic.device, Leaf.ACK)
        self._publisher.publish(ack_topic, encode(Ack(report_ids=(report_id,))))

    def _leaf_of(self, topic: DeviceTopic | ChunkTopic) -> Leaf:
        if topic.site != self._site:
            raise ProtocolError(f"of site {topic.site}, this is {self._site}")
        if not isinstance(topic, DeviceTopic) or topic.leaf not in DEVICE_WRITES:
            raise ProtocolError("a device does not write on that topic")
        return topic.leaf

    def _drop(self, kind: str, device: str, why: str) -> None:
        self.dropped[kind] += 1
        if (device, kind) not in self._complained and len(self._complained) < 10_000:
            self._complained.add((device, kind))
            LOG.warning("dropped a message of %s: %s (more are only counted)", device, why)


def remember(connection: Connection, news: list[Heard], now: float) -> Effects:
    """Write a batch into the database and say what follows from it.

    Args:
        connection: The open transaction.
        news: In the order in which they came.
        now: Unix time in seconds.
    """
    effects = Effects()
    known: dict[str, bool] = {}
    for row in news:
        if row.device not in known:
            known[row.device] = devices.is_known(connection, row.device)
            if known[row.device] and not row.is_retained:
                devices.touch(connection, row.device, now)
        if not known[row.device]:
            effects.unknown.add(row.device)
            continue
        WRITERS[type(row.message)](connection, row, now, effects)
    return effects


def _birth(connection: Connection, row: Heard, now: float, effects: Effects) -> None:
    assert isinstance(row.message, Birth)
    devices.take_birth_of(connection, row.device, row.message, is_replayed=row.is_retained, now=now)
    effects.born.append(row.device)


def _status(connection: Connection, row: Heard, _now: float, _effects: Effects) -> None:
    assert isinstance(row.message, Status)
    devices.take_status_of(connection, row.device, row.message)


def _reported(connection: Connection, row: Heard, _now: float, _effects: Effects) -> None:
    assert isinstance(row.message, Reported)
    devices.take_reported_of(connection, row.device, row.message)
    for model in row.message.models.values():
        shown = model.deployment
        if shown is None:
            continue
        found = deployments.find(connection, row.device, shown.deployment_id)
        if found is not None:
            after = take_progress(found[1], shown)
            if after != found[1]:
                deployments.put_status(connection, shown.deployment_id, after)


def _report(connection: Connection, row: Heard, now: float, effects: Effects) -> None:
    message = row.message
    assert isinstance(message, TrialReport | DeploymentReport | EventReport)
    effects.acks[row.device].append(message.report_id)
    if not reports.add(connection, row.device, message, now):
        return
    if isinstance(message, TrialReport):
        trials.take_report(connection, row.device, message, now)
    elif isinstance(message, DeploymentReport):
        found = deployments.find(connection, row.device, message.deployment_id)
        if found is not None:
            after = take_report(found[1], message)
            deployments.put_status(connection, message.deployment_id, after)


WRITERS: dict[type[Message], Callable[[Connection, Heard, float, Effects], None]] = {
    Birth: _birth,
    Status: _status,
    Reported: _reported,
    TrialReport: _report,
    DeploymentReport: _report,
    EventReport: _report,
}
