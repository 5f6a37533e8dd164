"""Which sensors are tried, in order. The first that is there is used.

A meter outside sees everything and comes first; then what sits in the supply of the module or
board; RAPL sees the CPU package only; a battery's gauge is slow and comes last.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trimtab_agent.energy.base import EnergySensor, NoSensor
from trimtab_agent.energy.battery import open_battery
from trimtab_agent.energy.external import open_external
from trimtab_agent.energy.ina2xx import open_ina2xx
from trimtab_agent.energy.ina3221 import open_ina3221, open_ina3221_iio
from trimtab_agent.energy.pmic import open_pmic
from trimtab_agent.energy.rapl import open_rapl

SENSORS: dict[str, Callable[[Path], EnergySensor | NoSensor]] = {
    "ina3221": open_ina3221,
    "ina3221x": open_ina3221_iio,
    "pmic": open_pmic,
    "ina2xx": open_ina2xx,
    "rapl": open_rapl,
    "battery": open_battery,
}


def find_sensor(root: Path = Path("/"), meter: Path | None = None) -> EnergySensor | NoSensor:
    """The first sensor that can be read, or all the reasons why there is none.

    Args:
        root: The folder that holds sys/, proc/ and dev/.
        meter: File of a meter outside, if one is configured. Then it is that one or none: figures
            of another sensor in its place would be mistaken for the meter's.
    """
    if meter is not None:
        return open_external(meter)
    reasons = ["no meter outside is configured"]
    for open_sensor in SENSORS.values():
        found = open_sensor(root)
        if not isinstance(found, NoSensor):
            return found
        reasons.append(found.reason)
    return NoSensor("no energy sensor: " + "; ".join(reasons))
