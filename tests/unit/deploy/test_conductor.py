from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy import Connection

from support.api_desk import ApiDesk
from support.fleet_facts import Facts
from trimtab_protocol.api import TrialSpec
from trimtab_protocol.errors import StorageError
from trimtab_protocol.messages import Ask, Desired, parse_message
from trimtab_protocol.rollout import RolloutSpec


def add_both(row: Connection) -> None:
    Facts(row).add_device("a")
    Facts(row).add_artifact("m", 1)


def test_what_was_not_published_before_a_crash_is_published_at_the_next_start(
    tmp_path: Path,
) -> None:
    async def first_life() -> None:
        desk = ApiDesk(tmp_path)
        desk.publisher.is_connected = False  # killed between the commit and the message
        await desk.write(add_both)
        await desk.conductor.create_rollout(RolloutSpec(name="m", version=1))
        await desk.conductor.step()
        assert desk.publisher.sent == []
        desk.database.close()

    async def second_life() -> None:
        desk = ApiDesk(tmp_path)
        await desk.conductor.step()
        assert desk.publisher.sent == []  # the decision is not taken twice
        await desk.conductor.publish_everything()
        (sent,) = desk.publisher.on("desired")
        assert sent.is_retained
        assert sent.qos == 1
        desired = parse_message(Desired, sent.payload)
        assert desired.sequence == 1
        assert list(desired.models) == ["m"]
        desk.database.close()

    asyncio.run(first_life())
    asyncio.run(second_life())


def test_a_device_that_is_back_is_asked_again_with_the_same_trial(tmp_path: Path) -> None:
    async def story() -> None:
        desk = ApiDesk(tmp_path)
        await desk.write(add_both)
        trial = await desk.conductor.create_trial(
            TrialSpec(name="m", version=1, device_class="sim", expires_s=60)
        )
        await desk.conductor.step()
        await desk.conductor.ask_again("a")
        await desk.conductor.ask_again("b")
        asks = [parse_message(Ask, row.payload) for row in desk.publisher.on("ask")]
        assert [ask.trial_id for ask in asks] == [trial.trial_id] * 2
        assert {ask.expires_at for ask in asks} == {1060.0}
        assert not any(row.is_retained for row in desk.publisher.on("ask"))
        desk.database.close()

    asyncio.run(story())


def test_it_looks_when_kicked_and_when_something_is_due(tmp_path: Path) -> None:
    async def story() -> None:
        desk = ApiDesk(tmp_path)
        await desk.write(lambda row: Facts(row).add_artifact("m", 1))
        task = asyncio.create_task(desk.conductor.run())
        await asyncio.sleep(0.05)
        ring = desk.changes.next_ring()
        trial = await desk.conductor.create_trial(
            TrialSpec(name="m", version=1, device_class="sim", expires_s=0.2)
        )
        await asyncio.wait_for(ring.wait(), 1)
        await asyncio.sleep(0.1)
        desk.now += 0.3
        ring = desk.changes.next_ring()
        await asyncio.wait_for(ring.wait(), 2)
        assert trial.trial_id
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        desk.database.close()

    asyncio.run(story())


def test_a_database_that_fails_does_not_end_it(tmp_path: Path) -> None:
    async def story() -> None:
        desk = ApiDesk(tmp_path)

        async def fail(_work: object) -> None:
            raise StorageError("disk full")

        desk.database.run = fail  # type: ignore[assignment]
        assert await desk.conductor.step() is None

    asyncio.run(story())
