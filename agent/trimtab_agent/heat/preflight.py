"""What speaks against measuring right now, as sentences with the remedy.

The list is empty on a device that is cool, idle and at a fixed clock. What cannot be read is not
complained of: it is absent from the record of the measurement instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from trimtab_agent.heat.files import cpu_folder, find_cpus, read_line
from trimtab_agent.heat.throttle import Ask, find_sources
from trimtab_agent.heat.zones import find_zones

MAX_START_C = 55.0
"""Above this a small board has little room left before it slows down."""

MAX_LOAD_SHARE = 0.5
"""Of the CPUs that may be busy in the mean of the last minute."""

MIN_AVAILABLE_SHARE, MIN_AVAILABLE_BYTES = 0.1, 128 * 1024 * 1024
"""Memory that must be available: the larger of both."""


def preflight(
    root: Path = Path("/"), cpus: Sequence[int] = (), ask: Ask | None = None
) -> tuple[str, ...]:
    """Complaints about the state of this device.

    Args:
        root: Holds sys/ and proc/.
        cpus: The CPUs that will be used; all, if empty.
        ask: The Raspberry Pi's firmware, where there is one.
    """
    used = tuple(cpus) or find_cpus(root)
    return (
        *_governors(root, used),
        *_hot_zones(root),
        *throttled_now(root, used, ask),
        *_load(root),
        *_memory(root),
    )


def throttled_now(root: Path, cpus: Sequence[int], ask: Ask | None = None) -> tuple[str, ...]:
    """What slows the device down at this moment."""
    complaints: list[str] = []
    for source in find_sources(root, cpus, ask):
        source.sample(0.0)
        complaints.extend(f"{what}, says {source.name}{_remedy(what)}" for what in source.now())
    return tuple(complaints)


def _remedy(what: str) -> str:
    if what == "under-voltage":
        return ": use the board's own power supply and a short, thick cable"
    return ": let it cool down, or give it a heat sink and a fan"


def _governors(root: Path, cpus: Sequence[int]) -> list[str]:
    found = {read_line(cpu_folder(root, cpu) / "cpufreq/scaling_governor") for cpu in cpus}
    wrong = sorted(name for name in found if name and name != "performance")
    if not wrong:
        return []
    return [
        f"the clock governor is {', '.join(wrong)}, so clocks change during a run: "
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    ]


def _hot_zones(root: Path) -> list[str]:
    readings = ((zone.read_c(), zone.name) for zone in find_zones(root))
    hot = sorted((c, name) for c, name in readings if c is not None and c > MAX_START_C)
    if not hot:
        return []
    highest_c, name = hot[-1]
    return [
        f"{name} is at {highest_c:.1f} °C, over {MAX_START_C:.0f} °C: "
        "wait until it is cooler, or give it a heat sink and a fan"
    ]


def _load(root: Path) -> list[str]:
    """Both must hold, because a measurement that just ended is still in the mean."""
    match = re.match(r"(\d+\.?\d*) \S+ \S+ (\d+)/", read_line(root / "proc/loadavg") or "")
    cores = len(find_cpus(root)) or 1
    if match is None:
        return []
    load, runnable = float(match.group(1)), int(match.group(2))
    if load <= MAX_LOAD_SHARE * cores or runnable <= 1:
        return []
    return [
        f"other programs are running: load {load:.2f} on {cores} CPUs, {runnable - 1} threads "
        "ready to run besides this one: stop them (see `top`) while it measures"
    ]


def _memory(root: Path) -> list[str]:
    text = read_line(root / "proc/meminfo") or ""
    fields = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", text, re.MULTILINE))
    if len(fields) < 2:
        return []
    total, available = (int(fields[name]) * 1024 for name in ("MemTotal", "MemAvailable"))
    if available >= max(MIN_AVAILABLE_BYTES, total * MIN_AVAILABLE_SHARE):
        return []
    return [
        f"only {available / 1e6:.0f} MB of {total / 1e6:.0f} MB memory are available, so a model "
        "may be swapped out: stop other programs"
    ]
