from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection

from support.fleet_facts import Facts, make_birth, make_status, open_database
from support.recording_publisher import RecordingPublisher
from trimtab_deploy import inbox as inbox_module
from trimtab_deploy.inbox import Inbox
from trimtab_deploy.mqtt import Incoming
from trimtab_deploy.store import devices
from trimtab_deploy.store.sqlite import Database
from trimtab_protocol.api import Device
from trimtab_protocol.errors import StorageError
from trimtab_protocol.messages import Ack, EventReport, Get, Presence, encode, parse_message

TOPIC = "trimtab/v1/here/d/{}/{}"


def incoming(device: str, leaf: str, payload: bytes, *, is_retained: bool = False) -> Incoming:
    return Incoming(TOPIC.format(device, leaf), payload, is_retained)


def event(report_id: str) -> bytes:
    return encode(EventReport(report_id=report_id, sent_at=1.0, event="started"))


def _add(row: Connection, name: str) -> None:
    Facts(row).add_device(name)


class Desk:
    """An inbox with everything around it recorded."""

    def __init__(self, folder: Path) -> None:
        self.database: Database = open_database(folder)
        self.publisher = RecordingPublisher()
        self.gets: list[tuple[str, Get]] = []
        self.born: list[str] = []
        self.changes = 0
        self.inbox = Inbox(
            site="here",
            database=self.database,
            publisher=self.publisher,
            clock=lambda: 77.0,
            on_get=lambda device, get: self.gets.append((device, get)),
            on_birth=self.born.append,
            on_change=self._count,
        )

    def _count(self) -> None:
        self.changes += 1

    async def add(self, *names: str) -> None:
        for name in names:
            await self.database.run(partial(_add, name=name))

    async def device(self, name: str) -> Device:
        def get(row: Connection) -> Device:
            return devices.get(row, name)

        return await self.database.run(get)

    def acks(self) -> dict[str, tuple[str, ...]]:
        return {
            row.topic.split("/")[4]: parse_message(Ack, row.payload).report_ids
            for row in self.publisher.on("ack")
        }


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_reports_of_a_batch_are_stored_then_acknowledged_per_device(desk: Desk) -> None:
    async def story() -> None:
        await desk.add("a", "b")
        await desk.inbox.handle(
            [
                incoming("a", "report", event("1")),
                incoming("b", "report", event("1")),
                incoming("a", "report", event("2")),
                incoming("a", "report", event("2")),
            ]
        )
        assert desk.acks() == {"a": ("1", "2", "2"), "b": ("1",)}
        assert desk.changes == 1

    asyncio.run(story())


def test_a_report_of_a_newer_kind_is_counted_and_given_up(desk: Desk) -> None:
    """[P-4.10]."""

    async def story() -> None:
        await desk.add("a")
        payload = b'{"kind": "new", "report_id": "n-1", "sent_at": 1.0, "schema_version": "1.7"}'
        await desk.inbox.handle([incoming("a", "report", payload)])
        assert desk.acks() == {"a": ("n-1",)}
        assert desk.inbox.dropped["protocol.malformed"] == 1

    asyncio.run(story())


@pytest.mark.parametrize(
    ("topic", "payload", "kind"),
    [
        (TOPIC.format("a", "report"), b"not json", "protocol.malformed"),
        (TOPIC.format("a", "report"), b'{"kind": "new", "report_id": "1"}', "protocol.malformed"),
        (TOPIC.format("a", "report"), b"\xff\xfe", "protocol.malformed"),
        (TOPIC.format("a", "birth"), b"[]", "protocol.malformed"),
        (TOPIC.format("a", "get"), b'{"sha256": "x"}', "protocol.malformed"),
        (TOPIC.format("a", "status"), b"", "protocol.malformed"),
        (TOPIC.format("a", "desired"), b"{}", "protocol.malformed"),
        (TOPIC.format("A!", "birth"), b"{}", "protocol.malformed"),
        ("trimtab/v1/elsewhere/d/a/birth", b"{}", "protocol.malformed"),
        ("completely/else", b"{}", "protocol.malformed"),
        (
            TOPIC.format("a", "status"),
            b'{"schema_version":"2.0","presence":"online","boot_id":"b","session_id":"s"}',
            "protocol.version",
        ),
        (TOPIC.format("stranger", "report"), event("1"), "unknown_device"),
    ],
)
def test_what_is_wrong_is_dropped_and_counted_and_the_rest_goes_on(
    desk: Desk, topic: str, payload: bytes, kind: str
) -> None:
    async def story() -> None:
        await desk.add("a")
        await desk.inbox.handle(
            [Incoming(topic, payload, False), incoming("a", "report", event("good"))]
        )
        assert desk.inbox.dropped == {kind: 1}
        assert desk.acks() == {"a": ("good",)}

    asyncio.run(story())


def test_a_cleared_retained_message_is_nothing(desk: Desk) -> None:
    async def story() -> None:
        await desk.inbox.handle([incoming("a", "birth", b"", is_retained=True)])
        assert not desk.inbox.dropped
        assert desk.changes == 0

    asyncio.run(story())


def test_the_same_complaint_is_logged_once(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(desk.inbox.handle([incoming("a", "report", b"x")] * 5))
    assert desk.inbox.dropped["protocol.malformed"] == 5
    assert len(caplog.records) == 1


def test_births_and_wills_make_the_presence(desk: Desk) -> None:
    async def story() -> None:
        await desk.add("a")
        await desk.inbox.handle([incoming("a", "birth", encode(make_birth("pi", "s-2")))])
        assert desk.born == ["a"]
        found = await desk.device("a")
        assert (found.device_class, found.presence) == ("pi", Presence.ONLINE)
        assert found.last_seen_at == 77.0
        old, new = (make_status(Presence.OFFLINE, name) for name in ("s-1", "s-2"))
        await desk.inbox.handle([incoming("a", "status", encode(old))])
        assert (await desk.device("a")).presence is Presence.ONLINE
        await desk.inbox.handle([incoming("a", "status", encode(new))])
        assert (await desk.device("a")).presence is Presence.OFFLINE

    asyncio.run(story())


def test_gets_go_to_the_delivery_without_the_database(desk: Desk) -> None:
    get = Get(sha256="0" * 64, chunk_bytes=1024, indices=(0, 1))
    desk.database.close()
    asyncio.run(desk.inbox.handle([incoming("a", "get", encode(get))]))
    assert desk.gets == [("a", get)]


def test_when_the_disk_is_full_nothing_is_acknowledged_until_it_is_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "RETRY_DELAY_S", 0.01)
    real, failures = desk.database.run, 3

    async def failing(work: Callable[[Connection], object]) -> object:
        nonlocal failures
        if failures:
            failures -= 1
            assert desk.publisher.sent == []
            raise StorageError("disk full")
        return await real(work)

    async def story() -> None:
        await desk.add("a")
        monkeypatch.setattr(desk.database, "run", failing)
        await desk.inbox.handle([incoming("a", "report", event("1"))])
        assert desk.acks() == {"a": ("1",)}

    asyncio.run(story())


def test_it_works_off_what_is_put_in_batches(desk: Desk) -> None:
    async def story() -> None:
        await desk.add("a")
        for number in range(600):
            desk.inbox.put(incoming("a", "report", event(str(number))))
        task = asyncio.create_task(desk.inbox.run())
        while sum(len(ids) for ids in _all_acks(desk)) < 600:
            await asyncio.sleep(0.01)
        task.cancel()
        assert desk.changes == 3  # 256 + 256 + 88

    asyncio.run(asyncio.wait_for(story(), 20))


def test_an_overload_is_dropped_and_counted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "MAX_WAITING", 2)
    for _ in range(5):
        desk.inbox.put(incoming("a", "report", event("1")))
    assert desk.inbox.dropped == {"overload": 3}


def _all_acks(desk: Desk) -> list[tuple[str, ...]]:
    return [parse_message(Ack, row.payload).report_ids for row in desk.publisher.on("ack")]
