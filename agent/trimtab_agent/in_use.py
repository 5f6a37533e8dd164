"""The port to the applications that use the models on this device.

Decisions ask of it: may a model be swapped now, and how does the one in use do? Times are on the
agent's monotonic clock. Whoever implements it is safe to call from any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Use:
    """What one application said of one model file since the agent started, or since `forget`.

    Args:
        starts: How often it said that it had loaded the file.
        started_at_s: When it said so last; None if it never did.
        heartbeat_at_s: When it said last that it works; None if it never did.
        inferences: How many latencies it reported within the last hour or two.
        p50_ms, p90_ms: Of them, to the resolution of `local.histogram`; None without any.
        p90_low_ms, p90_high_ms: The p90 is surely not below, and not above; None for too few.
    """

    starts: int = 0
    started_at_s: float | None = None
    heartbeat_at_s: float | None = None
    inferences: int = 0
    p50_ms: float | None = None
    p90_ms: float | None = None
    p90_low_ms: float | None = None
    p90_high_ms: float | None = None


class InUse(Protocol):
    """What applications let the agent know."""

    def held_until_s(self, name: str) -> float | None:
        """Until when an application holds the updates of a model name; None if none does."""

    def may_swap(self, name: str) -> bool:
        """Whether nobody holds updates; if so nobody can before the swap is over."""

    def uses_of(self, name: str, sha256: str) -> dict[str, Use]:
        """What each application said of a model file of this name, by its digest."""

    def forget(self, name: str, sha256: str) -> None:
        """What was said of a model file until now counts no longer."""


class NobodyAsks:
    """The port of an agent that applications cannot reach."""

    def held_until_s(self, name: str) -> float | None:  # noqa: ARG002 - the port
        """Nobody holds anything."""
        return None

    def may_swap(self, name: str) -> bool:  # noqa: ARG002 - the port
        """Always."""
        return True

    def uses_of(self, name: str, sha256: str) -> dict[str, Use]:  # noqa: ARG002 - the port
        """Nobody has said anything."""
        return {}

    def forget(self, name: str, sha256: str) -> None:
        """Nothing was said."""
