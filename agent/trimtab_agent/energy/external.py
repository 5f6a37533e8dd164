"""A meter outside: a program of the owner appends (time, watts) to a file, we read the new lines.

A line is `1732449000.25,3.41` or `{"t": 1732449000.25, "watts": 3.41}`; the first line of a file
may be a heading. Times above 1e9 are Unix time, others CLOCK_MONOTONIC of this device; they must
grow. A line without its end is still being written and is read next time.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

from trimtab_agent.energy.base import EnergySensor, NoSensor, Point, SensorFacts, add_trapezoid_mj
from trimtab_protocol.errors import ErrorCode, StorageError
from trimtab_protocol.measurement import SensorKind

UNIX_FROM_S = 1e9
LONGEST_LINE_BYTES = 4096


class ExternalMeter:
    """The lines that were appended since this object was made.

    Args:
        path: The file.
        unix_clock: Unix time, to place the meter's times on this device's monotonic clock.
        clock: CLOCK_MONOTONIC in seconds.
    """

    def __init__(
        self,
        path: Path,
        unix_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        # Fixed once: a clock that is set in mid-run must not move the points against each other.
        self._unix_ahead_s = unix_clock() - clock()
        self._offset = path.stat().st_size
        self._newest: Point | None = None

    def facts(self) -> SensorFacts:
        """Scope is the board: a meter in the supply sees all of it."""
        return SensorFacts(
            name=f"external:{self._path.name}",
            scope="board",
            kind=SensorKind.EXTERNAL,
            update_interval_s=1.0,
        )

    def read_points(self) -> tuple[Point, ...]:
        """What is new in the file.

        Raises:
            StorageError: The file is gone or was cut, or a line is no (time, watts).
        """
        try:
            return tuple(self._append(*pair) for pair in self._read_new())
        except (OSError, ValueError) as error:
            raise StorageError(
                f"external meter {self._path}: {error}", code=ErrorCode.STORAGE_CORRUPT
            ) from error

    def read_mj(self) -> float:
        """Energy up to the newest line, in millijoules.

        Raises:
            StorageError: As read_points.
        """
        self.read_points()
        return self._newest.energy_mj if self._newest is not None else 0.0

    def _read_new(self) -> list[tuple[float, float]]:
        if self._path.stat().st_size < self._offset:
            raise ValueError("it became shorter; the meter program must append")
        with self._path.open("rb") as file:
            file.seek(self._offset)
            fresh = file.read()
        whole, _, rest = fresh.rpartition(b"\n")
        if len(rest) > LONGEST_LINE_BYTES:
            raise ValueError(f"a line is longer than {LONGEST_LINE_BYTES} bytes")
        is_first, self._offset = self._offset == 0, self._offset + len(fresh) - len(rest)
        lines = [line for line in whole.decode().splitlines() if line.strip()]
        return _parse_all(lines, is_first)

    def _append(self, written_s: float, watts: float) -> Point:
        at_s = written_s - self._unix_ahead_s if written_s > UNIX_FROM_S else written_s
        energy_mj, power_mw = 0.0, watts * 1000.0
        if self._newest is not None:
            if at_s <= self._newest.at_s:
                raise ValueError(f"time {written_s} does not come after the line before it")
            energy_mj = add_trapezoid_mj(self._newest, at_s, power_mw)
        self._newest = Point(at_s, energy_mj, power_mw)
        return self._newest


def open_external(path: Path | None) -> EnergySensor | NoSensor:
    """The meter's file, or why there is none."""
    if path is None:
        return NoSensor("no external meter is configured")
    try:
        return ExternalMeter(path)
    except OSError as error:
        return NoSensor(f"external meter {path} cannot be read: {error}")


def parse_line(line: str) -> tuple[float, float]:
    """(time, watts) of one line.

    Raises:
        ValueError: It is neither CSV nor JSON of two finite numbers.
    """
    try:
        if line.lstrip().startswith("{"):
            row = json.loads(line)
            pair = float(row["t"]), float(row["watts"])
        else:
            first, second = line.split(",")[:2]
            pair = float(first), float(second)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{line.strip()[:60]!r} is not `time,watts`") from error
    if not all(math.isfinite(value) for value in pair):
        raise ValueError(f"{line.strip()[:60]!r} has a number that is not finite")
    return pair


def _parse_all(lines: list[str], is_first: bool) -> list[tuple[float, float]]:
    if is_first and lines and not lines[0].lstrip().startswith("{"):
        try:
            parse_line(lines[0])
        except ValueError:
            lines = lines[1:]  # the heading
    return [parse_line(line) for line in lines]
