"""The port of an energy sensor, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class SensorFacts:
    """What a sensor is.

    Args:
        name: Such as "rapl:package-0".
        scope: What it sees: package, module, board.
        resolution_mj: Smallest step of the counter.
    """

    name: str
    scope: str
    resolution_mj: float


class EnergySensor(Protocol):
    """A counter of energy that only grows."""

    def facts(self) -> SensorFacts:
        """What this sensor is."""

    def read_mj(self) -> float:
        """Energy since some fixed instant, in millijoules.

        Raises:
            StorageError: The sensor vanished or cannot be read any more.
        """


@dataclass(frozen=True)
class NoSensor:
    """Why this device has no energy figure."""

    reason: str
