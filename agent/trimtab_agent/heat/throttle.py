"""What says that a device was slowed down: one class per kind of evidence, behind one port.

Two kinds. A *state* (a flag that is set now) is looked at once or twice a second, and its count is
the seconds during which it was seen; each look stands for the time since the one before. A *counter*
is read before and after. A source that vanishes in mid-run keeps what it saw and says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from trimtab_agent.heat.files import (
    cpu_folder,
    find_cpus,
    find_hwmons,
    find_numbered,
    read_int,
    read_line,
)
from trimtab_protocol.errors import TrimtabError
from trimtab_protocol.measurement import ThrottleEvent

Ask = Callable[[str], str]
"""Ask a Raspberry Pi's firmware: "get_throttled" -> "throttled=0x50005".

It may raise OSError, ValueError or TrimtabError; the reason is then recorded and the run goes on.
"""

LIVE_BITS = {
    0: "under-voltage",
    1: "clock capped by the firmware",
    2: "throttled by the firmware",
    3: "soft temperature limit",
}
"""Of get_throttled. Bit n + 16 says: has been so since the board was started."""

STICKY_SHIFT = 16

OVER_CURRENT = {1: "under-voltage", 2: "average over-current", 3: "instantaneous over-current"}
"""The Jetson's soctherm alarms. The third fires often on small boards, about 1 ms each."""

PULSE_S, PULSE_CLOCK = 0.001, 0.5
"""An instantaneous over-current halves the clock for about so long (public measurements)."""


class ThrottleSource(Protocol):
    """A file or counter that tells of throttling."""

    name: str

    def sample(self, elapsed_s: float) -> None:
        """Look once more; `elapsed_s` seconds after the look before, 0 at the first."""

    def now(self) -> tuple[str, ...]:
        """What was set at the newest look; always empty for a counter."""

    def events(self, duration_s: float) -> tuple[ThrottleEvent, ...]:
        """What was seen in all."""

    def lost(self) -> str | None:
        """Why it could not be watched to the end; None if it could."""


class Seconds:
    """How long each of several states was seen."""

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}
        self.newest: tuple[str, ...] = ()

    def add(self, states: tuple[str, ...], elapsed_s: float) -> None:
        """One look."""
        self.newest = states
        for state in states:
            self.seen[state] = self.seen.get(state, 0.0) + elapsed_s

    def events(self, source: str) -> tuple[ThrottleEvent, ...]:
        """One for each state."""
        return tuple(
            ThrottleEvent(source=source, what=what, count=seconds, is_voiding=True)
            for what, seconds in self.seen.items()
        )


class PiFirmware:
    """get_throttled of a Raspberry Pi.

    The bits of the moment decide. A bit "since start" counts only if it was 0 before the run and is
    set after it: then something happened between two looks. A driver of the kernel clears these
    bits every now and then, so that one that is 0 proves nothing.
    """

    name = "firmware get_throttled"

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._seconds = Seconds()
        self._first: int | None = None
        self._newest = 0
        self._lost: str | None = None

    def sample(self, elapsed_s: float) -> None:
        """Ask once."""
        bits, reason = ask_throttled(self._ask)
        self._lost = reason
        if bits is None:
            self._seconds.newest = ()
            return
        self._first = bits if self._first is None else self._first
        self._newest = bits
        states = tuple(what for bit, what in LIVE_BITS.items() if bits >> bit & 1)
        self._seconds.add(states, elapsed_s)

    def now(self) -> tuple[str, ...]:
        """Live bits."""
        return self._seconds.newest

    def events(self, duration_s: float) -> tuple[ThrottleEvent, ...]:  # noqa: ARG002 - the port's
        """Live bits in seconds; a sticky bit that came up unseen as one event."""
        new = self._newest & ~(self._first or 0)
        unseen = tuple(
            ThrottleEvent(source=self.name, what=f"{what}, briefly", count=1, is_voiding=True)
            for bit, what in LIVE_BITS.items()
            if new >> (bit + STICKY_SHIFT) & 1 and what not in self._seconds.seen
        )
        return self._seconds.events(self.name) + unseen

    def lost(self) -> str | None:
        """The firmware's own words."""
        return self._lost


def ask_throttled(ask: Ask) -> tuple[int | None, str | None]:
    """The bits of get_throttled, or None and the reason."""
    try:
        text = ask("get_throttled").strip()
    except (OSError, ValueError, TrimtabError) as error:
        return None, f"the firmware cannot be asked for get_throttled: {error}"
    match = re.fullmatch(r"throttled=(?:0x)?([0-9a-fA-F]+)", text)
    if match is None:
        return None, f"the firmware's answer to get_throttled is not a number: {text[:80]!r}"
    return int(match.group(1), 16), None


class Flag:
    """A file that holds a number above 0 while the device is slowed down."""

    def __init__(self, name: str, what: str, path: Path) -> None:
        self.name = name
        self._what = what
        self._path = path
        self._seconds = Seconds()
        self._is_lost = False

    def sample(self, elapsed_s: float) -> None:
        """Read it once."""
        value = read_int(self._path)
        self._is_lost = value is None
        self._seconds.add((self._what,) if value is not None and value > 0 else (), elapsed_s)

    def now(self) -> tuple[str, ...]:
        """Whether it is set."""
        return self._seconds.newest

    def events(self, duration_s: float) -> tuple[ThrottleEvent, ...]:  # noqa: ARG002 - the port's
        """Seconds."""
        return self._seconds.events(self.name)

    def lost(self) -> str | None:
        """Whether the newest look failed."""
        return f"{self.name} cannot be read any more" if self._is_lost else None


class Counter:
    """One or more files that count events and are read before and after.

    Args:
        name, what: As in `ThrottleEvent`.
        paths: Counters of the same thing.
        is_shared: Every file holds the same counter (a package's, seen from each CPU): the largest
            step counts, not the sum.
        is_voiding: Whether a step voids the latency; if not, the rate is put into words.
    """

    def __init__(
        self,
        name: str,
        what: str,
        paths: Sequence[Path],
        *,
        is_shared: bool = False,
        is_voiding: bool = True,
    ) -> None:
        self.name = name
        self._what = what
        self._is_shared = is_shared
        self._is_voiding = is_voiding
        self._first = {path: value for path in paths if (value := read_int(path)) is not None}
        self._newest = dict(self._first)
        self._lost: str | None = None

    def sample(self, elapsed_s: float) -> None:  # noqa: ARG002 - a counter needs no time
        """Read all files."""
        self._lost = None
        for path in self._first:
            value = read_int(path)
            if value is None:
                self._lost = f"{self.name} cannot be read any more"
            else:
                self._newest[path] = value

    def now(self) -> tuple[str, ...]:
        """A counter has no present."""
        return ()

    def events(self, duration_s: float) -> tuple[ThrottleEvent, ...]:
        """The step from before to after, if there is one."""
        steps = [max(0, self._newest[path] - first) for path, first in self._first.items()]
        count = (max(steps, default=0)) if self._is_shared else sum(steps)
        if count == 0:
            return ()
        what = self._what if self._is_voiding else f"{self._what}, {_in_words(count, duration_s)}"
        event = ThrottleEvent(source=self.name, what=what, count=count, is_voiding=self._is_voiding)
        return (event,)

    def lost(self) -> str | None:
        """Which file is gone."""
        return self._lost


def find_sources(
    root: Path, cpus: Sequence[int], ask: Ask | None = None
) -> tuple[ThrottleSource, ...]:
    """Everything on this device that tells of throttling of its CPUs."""
    firmware: list[ThrottleSource] = [PiFirmware(ask)] if ask is not None else []
    return (
        *firmware,
        *_find_pi_alarm(root),
        *_find_soctherm(root),
        *_find_coolers(root),
        *_find_x86(root, cpus),
    )


def _find_pi_alarm(root: Path) -> list[ThrottleSource]:
    paths = [folder / "in0_lcrit_alarm" for folder in find_hwmons(root, "rpi_volt")]
    name = "rpi_volt in0_lcrit_alarm"
    return [Flag(name, "under-voltage", path) for path in paths if read_int(path) is not None]


def _find_soctherm(root: Path) -> list[ThrottleSource]:
    return [
        Counter(f"soctherm_oc oc{number}_event_cnt", what, [path], is_voiding=number != 3)
        for folder in find_hwmons(root, "soctherm_oc")
        for number, what in OVER_CURRENT.items()
        if read_int(path := folder / f"oc{number}_event_cnt") is not None
    ]


def _find_coolers(root: Path) -> list[ThrottleSource]:
    folders = find_numbered(root / "sys/class/thermal", "cooling_device")
    return [
        Flag(f"{folder.name} {kind}", "clock lowered because of the heat", folder / "cur_state")
        for folder in folders
        if "cpufreq" in (kind := read_line(folder / "type") or "")
        and read_int(folder / "cur_state") is not None
    ]


def _find_x86(root: Path, cpus: Sequence[int]) -> list[ThrottleSource]:
    folders = [cpu_folder(root, cpu) / "thermal_throttle" for cpu in cpus or find_cpus(root)]
    found: list[ThrottleSource] = []
    for level in ("core", "package"):
        paths = [folder / f"{level}_throttle_count" for folder in folders]
        readable = [path for path in paths if read_int(path) is not None]
        if readable:
            name = f"thermal_throttle {level}_throttle_count"
            what = f"{level} slowed down because of the heat"
            found.append(Counter(name, what, readable, is_shared=level == "package"))
    return found


def _in_words(count: int, duration_s: float) -> str:
    if duration_s <= 0:
        return f"{count} times"
    rate = count / duration_s
    lost = min(1.0, rate * PULSE_S * (1 - PULSE_CLOCK))
    return (
        f"{rate:.2g} per second (about {lost:.1%} of the clock, if each lasts 1 ms at half clock)"
    )
