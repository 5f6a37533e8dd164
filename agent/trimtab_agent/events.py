"""What the decision thread reacts to. Everything else in the process only puts these on its queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from trimtab_agent.hook_rules import HookResult
from trimtab_agent.measure.jobs import JobResult


@dataclass(frozen=True)
class Connected:
    """The session with the broker is up and subscribed."""


@dataclass(frozen=True)
class Disconnected:
    """The session was lost, or could not be made."""

    reason: str
    is_refused: bool = False  # the broker answered, and said no


@dataclass(frozen=True)
class Received:
    """A message came."""

    topic: str
    payload: bytes


@dataclass(frozen=True)
class ChildFinished:
    """A child ended, one way or another."""

    result: JobResult


@dataclass(frozen=True)
class HookFinished:
    """A hook ended, one way or another."""

    result: HookResult


@dataclass(frozen=True)
class Stop:
    """Somebody asked the process to end."""


Event = Union[Connected, Disconnected, Received, ChildFinished, HookFinished, Stop]
