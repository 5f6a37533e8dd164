"""A thread that reads a sensor at most ten times a second and keeps the points.

It runs in the measuring child, on whatever core the kernel gives it. The first failure ends the
recording and is kept for whoever asks for energy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from trimtab_agent.energy.base import EnergySensor, Point, Series
from trimtab_protocol.errors import StorageError

CATCH_UP_INTERVALS = 5.0
"""How many intervals a meter outside may lag behind before it counts as silent."""


class Recording:
    """A sensor's points from entering to leaving the `with` block."""

    def __init__(self, sensor: EnergySensor) -> None:
        self._sensor = sensor
        self._interval_s = sensor.facts().interval_s
        self._points: list[Point] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._failure: StorageError | None = None
        self._thread = threading.Thread(target=self._run, name="energy-recording", daemon=True)

    def __enter__(self) -> Recording:
        if isinstance(self._sensor, Series):
            self._sensor.start()
        self._take()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def wait_for_first(self) -> None:
        """Until there is a point: a meter outside gives one when it likes, and after it began.

        Raises:
            StorageError: The sensor failed.
            ValueError: It stays silent.
        """
        wait_s = CATCH_UP_INTERVALS * self._interval_s
        deadline_s = time.monotonic() + wait_s
        while True:
            with self._lock:
                if self._failure is not None:
                    raise self._failure
                if self._points:
                    return
            if time.monotonic() > deadline_s:
                raise ValueError(
                    f"samples do not cover anything: the sensor was silent for {wait_s:.1f} s; "
                    "is the meter on, and does what it says arrive?"
                )
            time.sleep(self._interval_s / 2)
            self._take()

    def points_until(self, end_s: float) -> Sequence[Point]:
        """All points, once there is one at or after an instant; waits for a meter that lags.

        Raises:
            StorageError: The sensor failed since the recording began.
        """
        deadline_s = time.monotonic() + CATCH_UP_INTERVALS * self._interval_s
        while True:
            self._take()
            with self._lock:
                if self._failure is not None:
                    raise self._failure
                points = tuple(self._points)
            if (points and points[-1].at_s >= end_s) or time.monotonic() > deadline_s:
                return points
            time.sleep(self._interval_s / 2)

    def mark(self) -> None:
        """Read now, at the edge of a window; so a failure shows before the next one begins.

        Raises:
            StorageError: The sensor failed, now or before.
        """
        self._take()
        with self._lock:
            if self._failure is not None:
                raise self._failure

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self._take()

    def _take(self) -> None:
        with self._lock:
            if self._failure is not None:
                return
            try:
                if isinstance(self._sensor, Series):
                    self._points.extend(self._sensor.read_points())
                else:
                    energy_mj = self._sensor.read_mj()
                    self._points.append(Point(time.monotonic(), energy_mj))
            except StorageError as error:
                self._failure = error
