"""RAPL: the energy counters of x86 packages, by the kernel's powercap interface.

Layout (Documentation/power/powercap/powercap.rst): `class/powercap/intel-rapl:N/` with `name`,
`energy_uj` (microjoules, wraps at `max_energy_range_uj`). Only package domains are added up: the
core, uncore and dram zones lie inside a package, and `psys` contains the packages, so a sum over
all of them would count twice. Each domain is unwrapped by its own range.

Since kernel 5.10 `energy_uj` is readable by root only (CVE-2020-8694); then the reason says so.
"""

from __future__ import annotations

from pathlib import Path

from trimtab_agent.energy.base import NoSensor, SensorFacts
from trimtab_protocol.errors import ErrorCode, StorageError


class Domain:
    """One package's counter, unwrapped."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "energy_uj"
        self._range_uj = int((folder / "max_energy_range_uj").read_text())
        self._newest_uj = int(self._path.read_text())
        self._total_uj = 0

    def read_uj(self) -> int:
        """Microjoules since this object was made."""
        now_uj = int(self._path.read_text())
        step_uj = now_uj - self._newest_uj
        self._total_uj += step_uj if step_uj >= 0 else step_uj + self._range_uj
        self._newest_uj = now_uj
        return self._total_uj


class Rapl:
    """All package domains of a machine."""

    def __init__(self, domains: tuple[Domain, ...]) -> None:
        self._domains = domains

    def facts(self) -> SensorFacts:
        """The scope is the CPU package: no memory, disk or power supply."""
        return SensorFacts(f"rapl:{len(self._domains)} package(s)", "package", resolution_mj=0.001)

    def read_mj(self) -> float:
        """Sum over packages.

        Raises:
            StorageError: A counter vanished.
        """
        try:
            return sum(domain.read_uj() for domain in self._domains) / 1000.0
        except (OSError, ValueError) as error:
            raise StorageError(
                f"RAPL counter cannot be read any more: {error}", code=ErrorCode.STORAGE_CORRUPT
            ) from error


def open_rapl(root: Path = Path("/")) -> Rapl | NoSensor:
    """Find the package domains, or say why there are none."""
    folder = root / "sys/class/powercap"
    if not folder.is_dir():
        return NoSensor("no RAPL: /sys/class/powercap is absent")
    zones = [path for path in sorted(folder.glob("intel-rapl:*")) if path.name.count(":") == 1]
    packages = [path for path in zones if _name(path).startswith("package")]
    if not packages:
        return NoSensor("no RAPL: no package domain in /sys/class/powercap")
    try:
        return Rapl(tuple(Domain(path) for path in packages))
    except PermissionError:
        return NoSensor("RAPL is there, but energy_uj is readable by root only")
    except (OSError, ValueError) as error:
        return NoSensor(f"RAPL cannot be read: {error}")


def _name(folder: Path) -> str:
    try:
        return (folder / "name").read_text().strip()
    except (OSError, ValueError):
        return ""
