"""Which sensors are tried, in order. The first that is there is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trimtab_agent.energy.base import EnergySensor, NoSensor
from trimtab_agent.energy.rapl import open_rapl

SENSORS: dict[str, Callable[[Path], EnergySensor | NoSensor]] = {"rapl": open_rapl}


def find_sensor(sys_root: Path = Path("/sys")) -> EnergySensor | NoSensor:
    """The first sensor that can be read, or all the reasons why there is none."""
    reasons = []
    for open_sensor in SENSORS.values():
        found = open_sensor(sys_root)
        if not isinstance(found, NoSensor):
            return found
        reasons.append(found.reason)
    return NoSensor("no energy sensor: " + "; ".join(reasons))
