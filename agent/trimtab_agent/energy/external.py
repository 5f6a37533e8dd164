"""A meter outside: a program of the owner appends (time, watts) to a file, we read the new lines.

A line is `1732449000.25,3.41` or `{"t": 1732449000.25, "watts": 3.41}`; the first line of a file
may be a heading. Times above 1e9 are Unix time, others CLOCK_MONOTONIC of this device; they must
grow, and none may lie in the future, as they do where the meter's clock is ahead of ours. A line
without its end is still being written and is read next time. Whoever keeps the file small renames
it to NAME.1 and begins a new one, as logrotate does; so does the agent's own feed from MQTT.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from trimtab_agent.energy.base import (
    SHORTEST_INTERVAL_S,
    EnergySensor,
    NoSensor,
    Point,
    SensorFacts,
    add_trapezoid_mj,
)
from trimtab_protocol.errors import ErrorCode, StorageError
from trimtab_protocol.measurement import SensorKind

UNIX_FROM_S = 1e9
LONGEST_LINE_BYTES = 4096
USUAL_INTERVAL_S = 1.0
FUTURE_TOLERANCE_S = 1.0
"""Between the meter's clock and ours; more would move its figures into other windows."""

TAIL_BYTES = LONGEST_LINE_BYTES
"""From so much of what is there already the meter's interval is taken, and where a line begins."""


class ExternalMeter:
    """The lines that were appended since this object was made.

    Args:
        path: The file.
        unix_clock: Unix time, to place the meter's times on this device's monotonic clock.
        clock: CLOCK_MONOTONIC in seconds.

    Raises:
        OSError: The file cannot be read.
    """

    def __init__(
        self,
        path: Path,
        unix_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._clock = clock
        self._unix_clock = unix_clock
        self._begin()

    def facts(self) -> SensorFacts:
        """Scope is the board: a meter in the supply sees all of it."""
        return SensorFacts(
            name=f"external:{self._path.name}",
            scope="board",
            kind=SensorKind.EXTERNAL,
            update_interval_s=self._interval_s,
        )

    def start(self) -> None:
        """Begin at the end of the file, which may be another one than when this was opened.

        Raises:
            StorageError: The file is gone.
        """
        try:
            self._begin()
        except OSError as error:
            raise StorageError(
                f"external meter {self._path}: {error}", code=ErrorCode.STORAGE_CORRUPT
            ) from error

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

    def _begin(self) -> None:
        # Fixed once: a clock that is set in mid-run must not move the points against each other.
        self._unix_ahead_s = self._unix_clock() - self._clock()
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            start = max(0, status.st_size - TAIL_BYTES)
            file.seek(start)
            tail = file.read(status.st_size - start)
        # Half a line at the end is read when it is whole.
        unfinished = len(tail) - (tail.rfind(b"\n") + 1)
        self._inode, self._offset = status.st_ino, status.st_size - unfinished
        self._interval_s = interval_of(tail)
        self._newest: Point | None = None

    def _read_new(self) -> list[tuple[float, float]]:
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            if not rotated(self._path).exists():
                raise
            return self._read_renamed()  # just now; the new file comes
        with file:
            inode = os.fstat(file.fileno()).st_ino
            if inode == self._inode:
                return self._read_rest(file)
            pairs = self._read_renamed()
            self._inode, self._offset = inode, 0
            return pairs + self._read_rest(file)

    def _read_renamed(self) -> list[tuple[float, float]]:
        with rotated(self._path).open("rb") as old:
            if os.fstat(old.fileno()).st_ino != self._inode:
                raise ValueError(f"it was replaced; rename the old one to {old.name}")
            return self._read_rest(old)

    def _read_rest(self, file: BinaryIO) -> list[tuple[float, float]]:
        if os.fstat(file.fileno()).st_size < self._offset:
            raise ValueError("it became shorter; the meter program must append")
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
        ahead_s = at_s - self._clock()
        if ahead_s > FUTURE_TOLERANCE_S:
            raise ValueError(
                f"time {written_s} is {ahead_s:.1f} s ahead of this device's clock: "
                "let both take their time from the same NTP server"
            )
        energy_mj, power_mw = 0.0, watts * 1000.0
        if self._newest is not None:
            if at_s <= self._newest.at_s:
                raise ValueError(f"time {written_s} does not come after the line before it")
            energy_mj = add_trapezoid_mj(self._newest, at_s, power_mw)
        self._newest = Point(at_s, energy_mj, power_mw)
        return self._newest


def open_external(path: Path) -> EnergySensor | NoSensor:
    """The meter's file, or why it cannot be read."""
    try:
        return ExternalMeter(path)
    except OSError as error:
        return NoSensor(f"external meter {path} cannot be read: {error.strerror}")


def rotated(path: Path) -> Path:
    """What a file is called once a new one took its place."""
    return path.with_name(path.name + ".1")


def interval_of(tail: bytes) -> float:
    """Seconds between two lines at the end of a file; 1 s where it does not tell."""
    times = []
    for line in tail.decode(errors="replace").splitlines():
        try:
            times.append(parse_line(line)[0])
        except ValueError:
            continue  # a heading, or half a line at either end
    steps = [later - sooner for sooner, later in itertools.pairwise(times) if later > sooner]
    middle_s = sorted(steps)[len(steps) // 2] if steps else USUAL_INTERVAL_S
    return max(SHORTEST_INTERVAL_S, middle_s)


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
