"""The control plane dies once, at each of its transactions and messages in turn; a rollout ends the
same way every time, because every decision is derived from the database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from support.api_desk import ApiDesk
from support.fleet_facts import Facts
from support.recording_publisher import Published, RecordingPublisher
from trimtab_deploy.inbox import Inbox
from trimtab_deploy.mqtt import Incoming
from trimtab_deploy.store import desired, reports, rollouts
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import ArtifactRef
from trimtab_protocol.messages import (
    Ack,
    DeploymentReport,
    Desired,
    encode,
    parse_message,
)
from trimtab_protocol.rollout import Rollout, RolloutSpec, RolloutState
from trimtab_protocol.signing import read_manifest

NAMES = ("a", "b", "c")
STATES = (DeploymentState.PROBING, DeploymentState.PROBATION)


class ProcessDiedError(BaseException):
    """Not an Exception, so that no handler hides it."""


class Fuse:
    """Blows at the n-th step that is counted, once."""

    def __init__(self, blows_at: int) -> None:
        self.left = blows_at

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise ProcessDiedError


class Device:
    """Takes up what is desired and reports from an outbox until acknowledged."""

    def __init__(self, name: str, *, fails: bool) -> None:
        self.name = name
        self.fails = fails
        self.sequence = 0
        self.known: set[str] = set()
        self.active: ArtifactRef | None = None
        self.outbox: dict[str, bytes] = {}

    def hear(self, message: Published) -> None:
        leaf = message.topic.rsplit("/", 1)[1]
        if leaf == "ack":
            for report_id in parse_message(Ack, message.payload).report_ids:
                self.outbox.pop(report_id, None)
        elif leaf == "desired":
            wanted = parse_message(Desired, message.payload)
            assert wanted.sequence >= self.sequence, "a sequence never shrinks"
            self.sequence = wanted.sequence
            for model in wanted.models.values():
                if model.deployment_id not in self.known:
                    self.known.add(model.deployment_id)
                    self._deploy(model.deployment_id, read_manifest(model.signed).ref())

    def _deploy(self, deployment_id: str, ref: ArtifactRef) -> None:
        last = DeploymentState.FAILED if self.fails else DeploymentState.COMMITTED
        self.active = None if self.fails else ref
        for state in (*STATES, last):
            report = DeploymentReport(
                report_id=f"{deployment_id}.{state.value}",
                sent_at=1.0,
                deployment_id=deployment_id,
                state=state,
                active=self.active,
            )
            self.outbox[report.report_id] = encode(report)


class FusedPublisher(RecordingPublisher):
    """Every message burns the fuse, before or after it is sent."""

    def __init__(self, fuse: Fuse, *, dies_after: bool) -> None:
        super().__init__()
        self._fuse = fuse
        self._dies_after = dies_after

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, is_retained: bool = False
    ) -> bool:
        if not self._dies_after:
            self._fuse.step()
        sent = super().publish(topic, payload, qos=qos, is_retained=is_retained)
        if self._dies_after:
            self._fuse.step()
        return sent


def make_life(folder: Path, fuse: Fuse, *, dies_after: bool) -> tuple[ApiDesk, Inbox]:
    """One life of the control plane over the folder."""
    desk = ApiDesk(folder)
    desk.publisher = FusedPublisher(fuse, dies_after=dies_after)
    desk.conductor._publisher = desk.publisher
    real = desk.database.run

    async def fused(work: Callable[[Connection], object]) -> object:
        if not dies_after:
            fuse.step()
        found = await real(work)
        if dies_after:
            fuse.step()
        return found

    desk.database.run = fused  # type: ignore[method-assign,assignment]
    inbox = Inbox(
        site="here",
        database=desk.database,
        publisher=desk.publisher,
        clock=lambda: desk.now,
        on_get=lambda *_: None,
        on_birth=lambda _: None,
        on_change=lambda: None,
    )
    return desk, inbox


async def live(desk: ApiDesk, inbox: Inbox, devices: dict[str, Device]) -> None:
    """Go on until nothing more happens."""
    await desk.conductor.publish_everything()
    for _ in range(30):
        await desk.conductor.step()
        _deliver(desk, devices)
        batch = [
            Incoming(f"trimtab/v1/here/d/{name}/report", payload, False)
            for name, device in devices.items()
            for payload in device.outbox.values()
        ]
        if not batch:
            return
        await inbox.handle(batch)
        _deliver(desk, devices)


def _deliver(desk: ApiDesk, devices: dict[str, Device]) -> None:
    sent, desk.publisher.sent = desk.publisher.sent, []
    for message in sent:
        devices[message.topic.split("/")[4]].hear(message)


async def prepare(folder: Path) -> None:
    desk = ApiDesk(folder)

    def facts(row: Connection) -> None:
        for name in NAMES:
            Facts(row).add_device(name)
        Facts(row).add_artifact("m", 1)

    await desk.write(facts)
    await desk.conductor.create_rollout(RolloutSpec(name="m", version=1))
    desk.database.close()


async def play(folder: Path, fuse: Fuse, *, dies_after: bool, failing: frozenset[str]) -> Rollout:
    """The story: alive, dead at most once, alive again."""
    await prepare(folder)
    devices = {name: Device(name, fails=name in failing) for name in NAMES}
    for _ in range(2):
        desk, inbox = make_life(folder, fuse, dies_after=dies_after)
        try:
            await live(desk, inbox, devices)
        except ProcessDiedError:
            _deliver(desk, devices)  # what had left before it died arrives
        desk.database.close()
    desk = ApiDesk(folder)
    (rollout,) = await desk.database.run(
        lambda row: [rollouts.get(row, found.rollout_id) for found in rollouts.get_all(row)]
    )
    for name, device in devices.items():
        assert device.outbox == {}
        assert await count(desk, name) in (0, 3)
        state = await desk.database.run(lambda row, name=name: desired.get(row, name))  # type: ignore[misc]
        assert device.sequence == (0 if state is None else state.sequence)
    desk.database.close()
    return rollout


async def count(desk: ApiDesk, name: str) -> int:
    work: Callable[[Connection], int] = lambda row: reports.count(row, name)  # noqa: E731
    return await desk.database.run(work)


def run(story: Awaitable[Rollout]) -> Rollout:
    async def inside() -> Rollout:
        return await story

    return asyncio.run(inside())


NO_DEATH = 10_000


def count_steps(folder: Path, *, dies_after: bool, failing: frozenset[str]) -> int:
    fuse = Fuse(NO_DEATH)
    run(play(folder, fuse, dies_after=dies_after, failing=failing))
    return NO_DEATH - fuse.left


@pytest.mark.parametrize("dies_after", [False, True])
@pytest.mark.parametrize(
    ("failing", "expected"),
    [
        (frozenset(), RolloutState.COMMITTED),
        (frozenset(NAMES), RolloutState.REFUSED),
    ],
)
def test_a_rollout_ends_the_same_way_wherever_the_control_plane_dies(
    tmp_path: Path, *, dies_after: bool, failing: frozenset[str], expected: RolloutState
) -> None:
    (tmp_path / "whole").mkdir()
    steps = count_steps(tmp_path / "whole", dies_after=dies_after, failing=failing)
    assert steps > 10
    for number in range(1, steps + 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        rollout = run(play(folder, Fuse(number), dies_after=dies_after, failing=failing))
        assert rollout.state is expected, (number, rollout.reason)
        finals = {row.state for row in rollout.devices if row.state is not None}
        wanted = DeploymentState.FAILED if failing else DeploymentState.COMMITTED
        assert finals == {wanted}, number
