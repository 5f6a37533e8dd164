"""Reading kernel files that may be missing, forbidden, switched off or oddly written.

A file of /sys answers with any error the driver likes: EAGAIN or ENODATA from a sensor whose power
domain is off, EACCES without the right, ENODEV when the device went away. All of them are `OSError`
and mean the same here: no value, and the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def read_line(path: Path) -> str | None:
    """The text of a file without the blanks and NUL bytes around it; None if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip("\0\n\t ")
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """The whole number a file begins with, whatever unit follows it; None if there is none."""
    text = read_line(path)
    match = re.match(r"[-+]?\d+", text) if text else None
    return int(match.group()) if match else None


def find_hwmons(root: Path, name: str) -> list[Path]:
    """Folders of a hwmon driver. They are found by name: the numbers change between boots."""
    folders = _by_number((root / "sys/class/hwmon").glob("hwmon*"))
    return [folder for folder in folders if read_line(folder / "name") == name]


def find_numbered(folder: Path, prefix: str) -> list[Path]:
    """Entries such as thermal_zone0, thermal_zone1, … thermal_zone10, by their number."""
    return _by_number(folder.glob(f"{prefix}[0-9]*"))


def find_cpus(root: Path) -> tuple[int, ...]:
    """Numbers of the CPUs that the kernel lists."""
    folders = (root / "sys/devices/system/cpu").glob("cpu[0-9]*")
    return tuple(sorted(int(path.name[3:]) for path in folders if path.name[3:].isdigit()))


def cpu_folder(root: Path, cpu: int) -> Path:
    """Where the kernel describes one CPU."""
    return root / f"sys/devices/system/cpu/cpu{cpu}"


def _by_number(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: int("".join(re.findall(r"\d", path.name)) or 0))
