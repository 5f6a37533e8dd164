"""What this device is, read from /proc and /sys below a root that tests can replace.

The fingerprint is a digest over everything that decides how a device measures; it is the same on
every restart of the same device. Sources: proc(5); Documentation/ABI/testing/sysfs-devices-system-cpu;
/proc/device-tree/model on boards with a device tree.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from trimtab_protocol.messages import RuntimeFact

UNKNOWN_BOOT_ID = "unknown"


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


def read_hardware(root: Path = Path("/")) -> Hardware:
    """Read what the kernel says about this device."""
    cpuinfo = _read(root / "proc/cpuinfo")
    return Hardware(
        board=_read_board(root),
        cpu=_first_field(cpuinfo, ("model name", "Model", "Hardware", "cpu model")),
        cpu_parts=tuple(sorted(set(_fields(cpuinfo, "CPU part")))),
        cores=len(_fields(cpuinfo, "processor")) or os.cpu_count() or 1,
        machine=platform.machine(),
        kernel=platform.release(),
        memory_total_bytes=_read_memory_total(root),
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
        boot_id=_read(root / "proc/sys/kernel/random/boot_id").strip() or UNKNOWN_BOOT_ID,
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
