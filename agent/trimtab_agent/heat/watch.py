"""Watching a device while it is measured, from a thread of the measuring process.

A look costs a few file reads, on a Pi a question to its firmware as well (a process where its mailbox
may not be opened), and happens at most twice a second; what can be read before and after
(clocks, counters) is not read in between. Nothing here ends a measurement: what cannot be watched is
named in `Heat.absent`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from trimtab_agent.heat.clocks import read_clocks, residency
from trimtab_agent.heat.throttle import Ask, find_sources
from trimtab_agent.heat.zones import ZoneRecord, find_zones
from trimtab_protocol.measurement import Heat

PERIOD_S = 0.5
"""Between two looks: a flag of the moment must be looked at once a second or more often."""

STOP_TIMEOUT_S = 5.0
"""A sensor driver that hangs for longer does not hold up the measurement."""


class HeatWatch:
    """One watch over one run: `start`, then `stop`.

    Args:
        root: Holds sys/ and proc/.
        cpus: The CPUs that the run may use; all, if empty.
        ask: The Raspberry Pi's firmware, where there is one.
        period_s: Seconds between two looks, 0.5 at least outside of tests.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        cpus: Sequence[int] = (),
        ask: Ask | None = None,
        period_s: float = PERIOD_S,
    ) -> None:
        self._root = root
        self._cpus = tuple(cpus)
        self._period_s = period_s
        self._zones = [ZoneRecord(zone) for zone in find_zones(root)]
        self._sources = find_sources(root, cpus, ask)
        self._clocks = read_clocks(root, self._cpus)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heat-watch", daemon=True)
        self._started_s = self._newest_s = time.monotonic()

    def start(self) -> None:
        """Take the first look and begin. Call it just before the timed runs.

        Raises:
            RuntimeError: It was started before.
        """
        self._clocks = read_clocks(self._root, self._cpus)
        self._started_s = self._newest_s = time.monotonic()
        self._look()
        self._thread.start()

    def stop(self) -> Heat:
        """Take the last look and say what was seen. Call it just after the timed runs.

        Raises:
            RuntimeError: It was not started.
        """
        clocks = residency(self._clocks, read_clocks(self._root, self._cpus))
        self._is_over.set()
        self._thread.join(STOP_TIMEOUT_S)
        hangs = ("a sensor hangs: its last reading is missing",) if self._thread.is_alive() else ()
        if not hangs:
            self._look()
        duration_s = time.monotonic() - self._started_s
        lost = tuple(reason for source in self._sources if (reason := source.lost()))
        return Heat(
            zones=tuple(zone.summarise() for zone in self._zones),
            throttling=tuple(event for one in self._sources for event in one.events(duration_s)),
            clock_residency=clocks.shares,
            highest_clock_share=clocks.highest_clock_share,
            absent=(*self._missing(), *lost, *hangs),
        )

    def _run(self) -> None:
        while not self._is_over.wait(self._period_s):
            self._look()

    def _look(self) -> None:
        now_s = time.monotonic()
        elapsed_s, self._newest_s = now_s - self._newest_s, now_s
        for zone in self._zones:
            zone.sample()
        for source in self._sources:
            source.sample(elapsed_s)

    def _missing(self) -> tuple[str, ...]:
        missing = []
        if not self._zones:
            missing.append("temperature: /sys/class/thermal has no thermal zone")
        if not self._sources:
            missing.append(
                "throttling: no firmware, alarm, cooling device or counter tells of it here"
            )
        return tuple(missing)
