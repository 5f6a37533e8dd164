"""The port to the applications that use the models on this device.

Decisions ask two things of it: may a model be swapped now, and how does the one in use do? Times
are on the agent's monotonic clock. Whoever implements it is safe to call from any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Use:
    """What applications said of one model file since the agent started.

    Args:
        starts: How often one said that it had loaded the file.
        started_at_s: When it was said last; None if it never was.
        heartbeat_at_s: When an application said last that it works; None if none did.
        inferences: How many latencies were reported.
        p50_ms, p90_ms: Of them, to the resolution of `local.histogram`; None without any.
    """

    starts: int = 0
    started_at_s: float | None = None
    heartbeat_at_s: float | None = None
    inferences: int = 0
    p50_ms: float | None = None
    p90_ms: float | None = None


class InUse(Protocol):
    """What applications let the agent know."""

    def held_until_s(self, name: str) -> float | None:
        """Until when an application holds the updates of a model name; None if none does."""

    def may_swap(self, name: str) -> bool:
        """Whether nobody holds updates; if so nobody can before the swap is over."""

    def use_of(self, name: str, sha256: str) -> Use:
        """What is known of a model file of this name, by its digest."""


class NobodyAsks:
    """The port of an agent that applications cannot reach."""

    def held_until_s(self, name: str) -> float | None:  # noqa: ARG002 - the port
        """Nobody holds anything."""
        return None

    def may_swap(self, name: str) -> bool:  # noqa: ARG002 - the port
        """Always."""
        return True

    def use_of(self, name: str, sha256: str) -> Use:  # noqa: ARG002 - the port
        """Nobody has said anything."""
        return Use()
