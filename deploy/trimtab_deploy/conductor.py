"""Moves rollouts and trials on whenever something was heard or a deadline is due, and publishes."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from sqlalchemy import Connection

from trimtab_deploy import steps
from trimtab_deploy.changes import Changes
from trimtab_deploy.engine.rollout import abort
from trimtab_deploy.mqtt import Publisher
from trimtab_deploy.steps import Outcome
from trimtab_deploy.store import desired, rollouts
from trimtab_deploy.store.sqlite import Database
from trimtab_deploy.targets import add_rollout, add_trial
from trimtab_protocol.api import Trial, TrialSpec
from trimtab_protocol.errors import TrimtabError
from trimtab_protocol.messages import Desired, encode
from trimtab_protocol.rollout import Rollout, RolloutSpec
from trimtab_protocol.topics import Leaf, device_topic

LOG = logging.getLogger("trimtab.deploy.conductor")
MAX_SLEEP_S = 5.0
MIN_PAUSE_S = 0.02
"""Reports arrive in bursts: one look serves many of them."""


class Conductor:
    """Owns the decisions of one control plane.

    Args:
        site: Site of the topics.
        database: What is known.
        publisher: Where desired states and asks go.
        clock: Unix time in seconds.
        changes: Told about every change.
    """

    def __init__(
        self,
        *,
        site: str,
        database: Database,
        publisher: Publisher,
        clock: Callable[[], float],
        changes: Changes,
    ) -> None:
        self._site = site
        self._database = database
        self._publisher = publisher
        self._clock = clock
        self._changes = changes
        self._kicked = asyncio.Event()

    def kick(self) -> None:
        """Something was heard: look soon."""
        self._kicked.set()
        self._changes.announce()

    async def run(self) -> None:
        """Look whenever kicked or something is due, until cancelled."""
        while True:
            self._kicked.clear()
            due_at = await self.step()
            pause_s = MAX_SLEEP_S if due_at is None else due_at - self._clock()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(pause_s, MIN_PAUSE_S), MAX_SLEEP_S)):
                    await self._kicked.wait()
            await asyncio.sleep(MIN_PAUSE_S)

    async def step(self) -> float | None:
        """Decide, remember, publish; the time when something is due, if anything is."""
        now = self._clock()
        try:
            outcome = await self._database.run(lambda row: steps.step_all(row, now))
        except TrimtabError as error:  # the disk is full: nothing was decided, look again later
            LOG.error("%s", error)
            return None
        self._publish(outcome)
        return min(outcome.due_at, default=None)

    async def create_rollout(self, spec: RolloutSpec) -> Rollout:
        """Begin a rollout.

        Raises:
            ProtocolError: Unknown artifact or device, no target, or a device that is in another
                running rollout of the model.
        """
        rollout_id, now = f"r-{secrets.token_hex(6)}", self._clock()
        rollout = await self._database.run(lambda row: add_rollout(row, rollout_id, spec, now))
        self.kick()
        return rollout

    async def create_trial(self, spec: TrialSpec) -> Trial:
        """Queue a trial.

        Raises:
            ProtocolError: Unknown artifact or device.
        """
        trial_id, now = f"t-{secrets.token_hex(6)}", self._clock()
        trial = await self._database.run(lambda row: add_trial(row, trial_id, spec, now))
        self.kick()
        return trial

    async def abort_rollout(self, rollout_id: str) -> Rollout:
        """End a rollout; one that has ended stays as it is.

        Raises:
            ProtocolError: There is no such rollout.
        """
        now, outcome = self._clock(), Outcome()

        def work(connection: Connection) -> Rollout:
            rollouts.get(connection, rollout_id)
            decision = abort(steps.load_facts(connection, rollout_id))
            if decision is not None:
                steps.end_rollout(connection, rollout_id, decision, now, outcome)
            return rollouts.get(connection, rollout_id)

        rollout = await self._database.run(work)
        outcome.has_changed = True
        self._publish(outcome)
        return rollout

    async def publish_everything(self) -> None:
        """Publish every desired state again: the broker may have forgotten them."""
        for device in await self._database.run(desired.devices):
            state = await self._database.run(partial(desired.get, device=device))
            if state is not None:
                self._publish_desired(device, state)
            await self._publisher.drain()

    async def ask_again(self, device: str) -> None:
        """Send a device that is back what it still owes an answer for."""
        for ask in await self._database.run(lambda row: steps.pending_asks(row, device)):
            self._publisher.publish(device_topic(self._site, device, Leaf.ASK), encode(ask))

    def _publish(self, outcome: Outcome) -> None:
        for device, state in outcome.desired.items():
            self._publish_desired(device, state)
        for device, ask in outcome.asks:
            self._publisher.publish(device_topic(self._site, device, Leaf.ASK), encode(ask))
        if outcome.has_changed:
            self._changes.announce()

    def _publish_desired(self, device: str, state: Desired) -> None:
        topic = device_topic(self._site, device, Leaf.DESIRED)
        self._publisher.publish(topic, encode(state), is_retained=True)
