"""What applications on this device say about the models they use.

The port between the local API and what decides about deployments. Times are those of the monotonic clock, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from trimtab_protocol.manifest import ArtifactRef


@dataclass(frozen=True)
class Use:
    """One artifact as its applications see it, since it became active or the agent started.

    Args:
        heartbeats: How many came.
        last_heartbeat_s: When the newest came; None for none.
        starts: How often an application said that it has started with this artifact.
        runs: Inferences in the histogram.
        p90_ms: The application's own; None for fewer runs than a p90 needs.
    """

    heartbeats: int = 0
    last_heartbeat_s: float | None = None
    starts: int = 0
    runs: int = 0
    p90_ms: float | None = None


class InUse(Protocol):
    """What the local API knows."""

    def held_until_s(self, name: str) -> float | None:
        """Until when the applications of a model ask for no activation; None for not held."""

    def use_of(self, name: str, artifact: ArtifactRef) -> Use:
        """How an artifact does in its applications."""


class NobodyAsks:
    """No local API: nothing is held, and nothing is known."""

    def held_until_s(self, name: str) -> float | None:  # noqa: ARG002
        """Never held."""
        return None

    def use_of(self, name: str, artifact: ArtifactRef) -> Use:  # noqa: ARG002
        """Nothing known."""
        return Use()
