"""How long each CPU ran at each clock: cpuN/cpufreq/stats/time_in_state before and after a run.

The kernel keeps these sums anyway, so nothing is polled. A line is "clock in kHz, time in units of
10 ms". What it shows is the clock the kernel asked for: firmware that slows the chip down by itself
(a Pi in undervoltage, a Jetson in over-current) is not visible here but in the throttle sources.
Source: Documentation/cpu-freq/cpufreq-stats.rst.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab_agent.heat.files import cpu_folder, find_cpus, read_int, read_line
from trimtab_protocol.reading import Reading, absent, known

Times = Mapping[int, int]
"""Clock in kHz -> units of 10 ms."""


@dataclass(frozen=True)
class ClockTable:
    """One CPU's sums at one instant.

    Args:
        times: Per clock.
        highest_khz: The highest clock that the settings and the power mode allow.
    """

    times: Times
    highest_khz: int


@dataclass(frozen=True)
class Residency:
    """Shares of the time, over all CPUs that were used."""

    shares: dict[str, float]
    highest_clock_share: Reading


def read_clocks(root: Path, cpus: Sequence[int]) -> dict[int, ClockTable]:
    """The sums of the given CPUs (of all, if none is given); a CPU without them is left out."""
    tables = ((cpu, _read_table(cpu_folder(root, cpu))) for cpu in cpus or find_cpus(root))
    return {cpu: table for cpu, table in tables if table is not None}


def residency(before: Mapping[int, ClockTable], after: Mapping[int, ClockTable]) -> Residency:
    """What happened between two readings. Pure."""
    if not before:
        return Residency(
            {}, absent("the kernel keeps no time_in_state for the CPUs that were used")
        )
    spent: dict[int, int] = defaultdict(int)
    at_highest = 0
    for cpu, table in before.items():
        if cpu not in after:
            return Residency({}, absent(f"time_in_state of CPU {cpu} vanished during the run"))
        for khz, ticks in after[cpu].times.items():
            step = ticks - table.times.get(khz, 0)
            if step < 0:
                return Residency({}, absent(f"time_in_state of CPU {cpu} was reset during the run"))
            spent[khz] += step
            at_highest += step if khz >= table.highest_khz else 0
    total = sum(spent.values())
    if total == 0:
        return Residency({}, absent("the run was shorter than the 10 ms that time_in_state counts"))
    shares = {str(khz): ticks / total for khz, ticks in sorted(spent.items()) if ticks > 0}
    return Residency(shares, known(at_highest / total))


def _read_table(folder: Path) -> ClockTable | None:
    text = read_line(folder / "cpufreq/stats/time_in_state") or ""
    rows = [line.split() for line in text.splitlines()]
    times = {
        int(row[0]): int(row[1])
        for row in rows
        if len(row) >= 2 and row[0].isdigit() and row[1].isdigit()
    }
    if not times:
        return None
    limit_khz = read_int(folder / "cpufreq/scaling_max_freq") or max(times)
    allowed = [khz for khz in times if khz <= limit_khz]
    return ClockTable(times, max(allowed or times))
