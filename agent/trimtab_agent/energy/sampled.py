"""Energy out of power: the trapezoid rule over readings that are taken again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from trimtab_agent.energy.base import Point, SensorFacts, add_trapezoid_mj
from trimtab_protocol.errors import ErrorCode, StorageError, TrimtabError


class Sampled:
    """A power sensor as a count of energy.

    Whoever calls `read_points` samples by doing so. Whoever calls `read_mj` alone gets a thread
    that samples between the calls, from the first call on until `close`.

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
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._newest: Point | None = None
        self._failure: StorageError | None = None

    def facts(self) -> SensorFacts:
        """What this sensor is."""
        return self._facts

    def start(self) -> None:
        """Begin at the next reading, with no energy."""
        with self._lock:
            self._newest = None

    def read_points(self) -> tuple[Point, ...]:
        """Take one reading.

        Raises:
            StorageError: The sensor cannot be read any more.
        """
        with self._lock:
            return (self._sample(),)

    def read_mj(self) -> float:
        """Energy since the first call, in millijoules.

        Raises:
            StorageError: The sensor cannot be read any more, now or since the last call.
        """
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._keep_sampling, name="power-sampler", daemon=True
                )
                self._thread.start()
            if self._failure is not None:
                raise self._failure
            return self._sample().energy_mj

    def close(self) -> None:
        """End the thread, if there is one."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _keep_sampling(self) -> None:
        while not self._stopped.wait(self._facts.interval_s):
            with self._lock:
                try:
                    self._sample()
                except StorageError as error:
                    self._failure = error
                    return

    def _sample(self) -> Point:
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
        return self._newest
