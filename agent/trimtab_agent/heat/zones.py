"""Thermal zones: /sys/class/thermal/thermal_zone*/{type,temp}, in thousandths of a degree Celsius.

Some zones answer EAGAIN for as long as their part of the chip is switched off (Jetson cv0, an idle
wireless card), so a failed reading is no error. Source: Documentation/driver-api/thermal/sysfs-api.rst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from trimtab_agent.heat.files import find_numbered, read_int, read_line
from trimtab_protocol.measurement import Zone
from trimtab_protocol.reading import Reading, absent, known

LOWEST_C, HIGHEST_C = -60.0, 200.0
"""What a driver returns outside of this is a mark for "no value", such as -256 or -274 degrees."""

PLACEHOLDERS = frozenset({"PMIC-Die"})
"""The Jetson Nano's zone of this name always says 100 degrees."""


@dataclass(frozen=True)
class ZoneFile:
    """One sensor. Its name is the zone's type, with the zone's number where a type occurs twice."""

    name: str
    path: Path

    def read_c(self) -> float | None:
        """Degrees Celsius; None while the sensor gives no value."""
        thousandths = read_int(self.path)
        if thousandths is None or not LOWEST_C <= thousandths / 1000 <= HIGHEST_C:
            return None
        return thousandths / 1000


def find_zones(root: Path = Path("/")) -> tuple[ZoneFile, ...]:
    """All zones that may have a temperature, readable at the moment or not."""
    folders = find_numbered(root / "sys/class/thermal", "thermal_zone")
    types = [(folder, read_line(folder / "type") or folder.name) for folder in folders]
    names = [name for _, name in types]
    return tuple(
        ZoneFile(name if names.count(name) == 1 else f"{name}/{folder.name}", folder / "temp")
        for folder, name in types
        if name not in PLACEHOLDERS
    )


class ZoneRecord:
    """What one zone said in the course of a run."""

    def __init__(self, zone: ZoneFile) -> None:
        self._zone = zone
        self._highest_c = -math.inf
        self._first: Reading | None = None
        self._newest = absent("was never read")

    def sample(self) -> None:
        """Read it once more."""
        self._newest = self._read()
        self._first = self._first or self._newest

    def summarise(self) -> Zone:
        """Before, highest and after."""
        highest = self._newest if self._highest_c == -math.inf else known(self._highest_c)
        before = self._first or self._newest
        return Zone(name=self._zone.name, before=before, highest=highest, after=self._newest)

    def _read(self) -> Reading:
        value_c = self._zone.read_c()
        if value_c is None:
            return absent(f"{self._zone.path.parent.name} gives no temperature at the moment")
        self._highest_c = max(self._highest_c, value_c)
        return known(value_c)
