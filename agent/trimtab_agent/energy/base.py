"""The ports of energy sensors, what is known of each, and what all of them share.

A sensor is read at most ten times a second, by a thread of the measuring child and never in the
worker. A `Counter` has its energy asked for at any instant. Whatever gives power instead is a
`Series`: it hands over points of (time, energy so far), integrated by the trapezoid rule, so that
windows are cut out of the points with their edges interpolated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from trimtab_protocol.measurement import SensorKind

SHORTEST_INTERVAL_S = 0.1
"""Power is read no faster: reading costs time on the CPU that is measured."""

SETTLING_TIME_CONSTANTS = 5.0
"""After this many time constants an averaging filter has forgotten what was before (0.7 % left)."""


@dataclass(frozen=True)
class SensorFacts:
    """What a sensor is.

    Args:
        name: Such as "rapl:1 package(s)".
        scope: What it sees: package, rails, module, board.
        resolution_mj: Smallest step of a counter.
        kind: How it comes to its figures.
        resolution_mw: Smallest step of a power reading.
        offset_mw: Constant error of a power reading, either sign. It cancels in dynamic energy.
        gain_ratio: Error in proportion to the reading, 0 to 1.
        update_interval_s: Time between two new values; each may be the mean since the one before.
        filter_s: Time constant of the sensor's own averaging; 0 without.
        is_slow: It may go on showing an old value: only changes count as samples.
        warning: What whoever reads the figure has to know.
    """

    name: str
    scope: str
    resolution_mj: float = 0.0
    kind: SensorKind = SensorKind.COUNTER
    resolution_mw: float = 0.0
    offset_mw: float = 0.0
    gain_ratio: float = 0.0
    update_interval_s: float = SHORTEST_INTERVAL_S
    filter_s: float = 0.0
    is_slow: bool = False
    warning: str = ""

    @property
    def interval_s(self) -> float:
        """How often it is worth reading; faster than half the filter's constant adds nothing."""
        return max(SHORTEST_INTERVAL_S, self.update_interval_s, self.filter_s / 2)

    @property
    def settle_s(self) -> float:
        """How much of a run's beginning still shows what was before it."""
        return SETTLING_TIME_CONSTANTS * self.filter_s + self.tail_s

    @property
    def tail_s(self) -> float:
        """How much of a run's end may be mixed with what came after; a counter has sharp edges."""
        return 0.0 if self.kind is SensorKind.COUNTER else self.interval_s

    @property
    def source(self) -> str:
        """The name, with the warning where there is one."""
        return f"{self.name} ({self.warning})" if self.warning else self.name


class Point(NamedTuple):
    """Energy since some fixed instant, at a time of CLOCK_MONOTONIC; the power, where it is known."""

    at_s: float
    energy_mj: float
    power_mw: float | None = None


def add_trapezoid_mj(before: Point, at_s: float, power_mw: float) -> float:
    """Energy at a later reading of power, by the trapezoid rule."""
    before_mw = power_mw if before.power_mw is None else before.power_mw
    return before.energy_mj + (at_s - before.at_s) * (before_mw + power_mw) / 2


class Counter(Protocol):
    """A count of energy that only grows."""

    def facts(self) -> SensorFacts:
        """What this sensor is."""

    def read_mj(self) -> float:
        """Energy since some fixed instant, in millijoules.

        Raises:
            StorageError: The sensor vanished or cannot be read any more.
        """


@runtime_checkable
class Series(Protocol):
    """A sensor that has points of its own, because it gives power and not energy."""

    def facts(self) -> SensorFacts:
        """What this sensor is."""

    def start(self) -> None:
        """Begin here: what was before does not count, however long ago the sensor was opened.

        Raises:
            StorageError: The sensor vanished or cannot be read any more.
        """

    def read_points(self) -> tuple[Point, ...]:
        """Points that are new since the last call; may be none.

        Raises:
            StorageError: The sensor vanished or cannot be read any more.
        """


EnergySensor = Counter | Series


@dataclass(frozen=True)
class NoSensor:
    """Why this device has no energy figure."""

    reason: str


def read_number(path: Path) -> float:
    """The number a kernel file begins with; some old drivers write a unit after it ("32760 ma").

    Raises:
        OSError: The file cannot be read: EAGAIN, EACCES, ENODEV or gone.
        ValueError: It does not begin with a number.
    """
    text = path.read_text(errors="replace")
    match = re.match(r"\s*([-+]?\d+(?:\.\d+)?)(?:\s*[A-Za-z]+)?\s*$", text)
    if match is None:
        raise ValueError(f"{path} reads {text.strip()[:40]!r}, which is not a number")
    return float(match.group(1))


def read_number_or(path: Path, default: float) -> float:
    """As read_number, with a value for a file that is missing or unreadable."""
    try:
        return read_number(path)
    except (OSError, ValueError):
        return default


def read_text(path: Path) -> str:
    """A name or label without blanks; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip("\0\n\t ")
    except OSError:
        return ""


def find_hwmons(root: Path, names: frozenset[str]) -> list[tuple[str, Path]]:
    """(name, folder) of hwmon chips by their driver's name: the numbers change between boots."""
    folders = sorted((root / "sys/class/hwmon").glob("hwmon*"))
    named = [(read_text(folder / "name"), folder) for folder in folders]
    return [(name, folder) for name, folder in named if name in names]
