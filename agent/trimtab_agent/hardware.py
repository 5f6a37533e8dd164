"""What this device is, read from /proc and /sys below a root that tests can replace.

The fingerprint is a digest over everything that decides how a device measures; it is the same on
every restart of the same device. So nothing of the moment is in it: no boot id, governor, clock,
temperature or load. What is set until somebody sets it otherwise (a Jetson's power mode) is.
Sources: proc(5); Documentation/ABI/testing/sysfs-devices-system-cpu; os-release(5);
/proc/device-tree/{model,compatible} on boards with a device tree; nvpmodel's status file.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

from trimtab_protocol.messages import RuntimeFact

UNKNOWN_BOOT_ID = "unknown"

CONTAINER_MARKS = (".dockerenv", "run/.containerenv", "run/systemd/container")
"""Files that Docker, Podman and systemd-nspawn leave in a container."""


@dataclass(frozen=True)
class Hardware:
    """Facts that do not change while the device is up. An empty string means: cannot be read."""

    board: str
    cpu: str
    cpu_parts: tuple[str, ...]
    cores: int
    machine: str
    kernel: str
    memory_total_bytes: int | None
    page_bytes: int
    boot_id: str
    soc: str = ""
    operating_system: str = ""
    cpu_capacities: tuple[int, ...] = ()
    power_mode: str | None = None


class ConditionFacts(TypedDict):
    """Fields of the protocol's `Condition` under the names they have there.

    None, or an empty string, means: cannot be read here.
    """

    soc: str
    operating_system: str
    power_mode: str | None
    min_clock_khz: int | None
    max_clock_khz: int | None
    are_clocks_pinned: bool | None
    is_turbo_allowed: bool | None
    is_container: bool | None


def read_hardware(root: Path = Path("/")) -> Hardware:
    """Read what the kernel says about this device."""
    cpuinfo = _read(root / "proc/cpuinfo")
    return Hardware(
        board=_read_board(root),
        cpu=_first_field(cpuinfo, ("model name", "Model", "Hardware", "cpu model")),
        cpu_parts=tuple(sorted(set(_fields(cpuinfo, "CPU part")))),
        cores=len(_fields(cpuinfo, "processor")) or os.cpu_count() or 1,
        machine=platform.machine(),
        kernel=_read(root / "proc/sys/kernel/osrelease").strip() or platform.release(),
        memory_total_bytes=_read_memory_total(root),
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
        boot_id=_read(root / "proc/sys/kernel/random/boot_id").strip() or UNKNOWN_BOOT_ID,
        soc=_read_soc(root),
        operating_system=_read_operating_system(root),
        cpu_capacities=_read_cpu_capacities(root),
        power_mode=read_power_mode(root),
    )


def condition_facts(root: Path = Path("/"), cpus: Sequence[int] = ()) -> ConditionFacts:
    """What a measurement must say about the device besides `Hardware`; read it at the measurement.

    Args:
        root: Holds sys/, proc/, etc/ and var/.
        cpus: The CPUs that are used; all, if empty. Limits and pinning are theirs.
    """
    lowest, highest = _read_clock_limits(root, cpus)
    is_known = bool(lowest) and len(lowest) == len(highest)
    return ConditionFacts(
        soc=_read_soc(root),
        operating_system=_read_operating_system(root),
        power_mode=read_power_mode(root),
        min_clock_khz=min(lowest, default=None),
        max_clock_khz=max(highest, default=None),
        are_clocks_pinned=lowest == highest if is_known else None,
        is_turbo_allowed=read_turbo(root),
        is_container=read_container(root),
    )


def derive_device_class(hardware: Hardware, threads: int) -> str:
    """A readable class name: board (else CPU), threads.

    Runtime versions are in the fingerprint and in every measurement's condition, not in the name,
    so that a budget does not lose its class by an upgrade.
    """
    label = hardware.board or hardware.cpu or hardware.machine
    slug = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")[:48].strip("-") or "device"
    return f"{slug}-t{threads}"


def fingerprint(hardware: Hardware, threads: int, runtimes: Iterable[RuntimeFact]) -> str:
    """Digest of all that decides how this device measures; not of what changes at a reboot."""
    facts = asdict(hardware)
    del facts["boot_id"]
    facts["threads"] = threads
    facts["runtimes"] = sorted(f"{row.package} {row.version}" for row in runtimes)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_governor(root: Path = Path("/")) -> str | None:
    """The CPU frequency governor; None where there is none."""
    text = _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    return text or None


def read_load_average_1m(root: Path = Path("/")) -> float | None:
    """Load average of the last minute."""
    words = _read(root / "proc/loadavg").split()
    return float(words[0]) if words else None


def read_power_mode(root: Path = Path("/")) -> str | None:
    """The Jetson's power mode by name, such as "25W"; None where there is no nvpmodel.

    The status file holds the mode's number ("pmode:0001"), nvpmodel.conf the names. A name such as
    25W says which clocks and cores are allowed, not how much the module takes.
    """
    match = re.search(r"pmode:\s*(\d+)", _read(root / "var/lib/nvpmodel/status"))
    if match is None:
        return None
    number = int(match.group(1))
    modes = re.findall(r"POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", _read(root / "etc/nvpmodel.conf"))
    return next((name for known, name in modes if int(known) == number), f"mode {number}")


def read_turbo(root: Path = Path("/")) -> bool | None:
    """Whether x86 CPUs may go above their base clock; None where there is no such switch."""
    cpu = root / "sys/devices/system/cpu"
    if (no_turbo := _read(cpu / "intel_pstate/no_turbo").strip()) in {"0", "1"}:
        return no_turbo == "0"
    boost = _read(cpu / "cpufreq/boost").strip()
    return boost == "1" if boost in {"0", "1"} else None


def read_container(root: Path = Path("/")) -> bool | None:
    """Whether this is a container; None where it cannot be told."""
    if any((root / mark).exists() for mark in CONTAINER_MARKS):
        return True
    groups = _read(root / "proc/1/cgroup")
    if re.search(r"docker|lxc|kubepods|containerd|libpod", groups):
        return True
    return False if "init.scope" in groups else None


def _read_clock_limits(root: Path, cpus: Sequence[int]) -> tuple[list[int], list[int]]:
    cpu = root / "sys/devices/system/cpu"
    names = [f"cpu{number}" for number in cpus] or ["cpu[0-9]*"]
    folders = sorted(path for name in names for path in cpu.glob(f"{name}/cpufreq"))
    lowest = [_read_number(folder / "scaling_min_freq") for folder in folders]
    highest = [_read_number(folder / "scaling_max_freq") for folder in folders]
    return [one for one in lowest if one is not None], [one for one in highest if one is not None]


def _read_soc(root: Path) -> str:
    """The last, most general name of the board's device tree, such as brcm,bcm2712."""
    names = [
        name for name in _read(root / "proc/device-tree/compatible").split("\0") if name.strip()
    ]
    return names[-1].strip() if names else ""


def _read_operating_system(root: Path) -> str:
    text = _read(root / "etc/os-release") or _read(root / "usr/lib/os-release")
    match = re.search(r"^PRETTY_NAME=(.*)$", text, re.MULTILINE)
    return match.group(1).strip().strip("\"'") if match else ""


def _read_cpu_capacities(root: Path) -> tuple[int, ...]:
    """What the kernel thinks that each kind of core achieves, the best being 1024."""
    paths = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpu_capacity")
    return tuple(sorted({one for path in paths if (one := _read_number(path)) is not None}))


def _read_number(path: Path) -> int | None:
    match = re.match(r"\d+", _read(path))
    return int(match.group()) if match else None


def _read_board(root: Path) -> str:
    tree = _read(root / "proc/device-tree/model").strip("\0\n ")
    if tree:
        return tree
    vendor = _read(root / "sys/class/dmi/id/sys_vendor").strip()
    product = _read(root / "sys/class/dmi/id/product_name").strip()
    return f"{vendor} {product}".strip()


def _read_memory_total(root: Path) -> int | None:
    match = re.search(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _fields(text: str, name: str) -> list[str]:
    pattern = rf"^{re.escape(name)}[ \t]*:[ \t]*(\S.*)$"
    return [match.strip() for match in re.findall(pattern, text, re.MULTILINE)]


def _first_field(text: str, names: tuple[str, ...]) -> str:
    return next((found[0] for name in names if (found := _fields(text, name))), "")
