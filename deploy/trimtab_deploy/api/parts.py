"""What the routes work with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from trimtab_deploy.broker.port import Broker
from trimtab_deploy.changes import Changes
from trimtab_deploy.conductor import Conductor
from trimtab_deploy.payloads import PayloadStore
from trimtab_deploy.store.sqlite import Database
from trimtab_protocol.api import ServerFacts

MAX_WAIT_S = 60.0
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Parts:
    """The control plane's parts, as far as the API needs them.

    Args:
        token: Bearer token of the administrator.
        facts: What clients may know of this server.
        trusted_keys: Public keys by id; empty accepts any signature.
    """

    token: str
    facts: ServerFacts
    database: Database
    payloads: PayloadStore
    conductor: Conductor
    changes: Changes
    broker: Broker
    clock: Callable[[], float]
    trusted_keys: Mapping[str, bytes] = field(default_factory=dict)


async def wait_for(
    changes: Changes,
    load: Callable[[], Awaitable[ResultT]],
    has_ended: Callable[[ResultT], bool],
    wait_s: float,
) -> ResultT:
    """Load something now, and again at each change until it has ended or the time is over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    while True:
        ring = changes.next_ring()
        found = await load()
        if has_ended(found) or loop.time() >= deadline:
            return found
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await ring.wait()
