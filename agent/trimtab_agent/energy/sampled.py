"""Energy out of power: the trapezoid rule over readings that are taken again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

from trimtab_agent.energy.base import Point, SensorFacts, add_trapezoid_mj
from trimtab_protocol.errors import ErrorCode, StorageError, TrimtabError


class Sampled:
    """A power sensor as a series of points; whoever asks for points samples by doing so.

    Args:
        facts: What the sensor is.
        read_mw: One reading in milliwatts.
        clock: CLOCK_MONOTONIC in seconds.
    """

    def __init__(
        self,
        facts: SensorFacts,
        read_mw: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._facts = facts
        self._read_mw = read_mw
        self._clock = clock
        self._newest: Point | None = None

    def facts(self) -> SensorFacts:
        """What this sensor is."""
        return self._facts

    def start(self) -> None:
        """Begin at the next reading, with no energy."""
        self._newest = None

    def read_points(self) -> tuple[Point, ...]:
        """Take one reading.

        Raises:
            StorageError: The sensor cannot be read any more.
        """
        try:
            power_mw = self._read_mw()
        except (OSError, ValueError, TrimtabError) as error:
            raise StorageError(
                f"{self._facts.name} cannot be read any more: {error}",
                code=ErrorCode.STORAGE_CORRUPT,
            ) from error
        now_s = self._clock()
        energy_mj = 0.0
        if self._newest is not None:
            energy_mj = add_trapezoid_mj(self._newest, now_s, power_mw)
        self._newest = Point(now_s, energy_mj, power_mw)
        return (self._newest,)
