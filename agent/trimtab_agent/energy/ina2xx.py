"""A monitor wired into the supply of any board: the hwmon drivers ina2xx, ina238 and ina260.

Layout (Documentation/hwmon/ina2xx.rst): `power1_input` in microwatts, `in1_input` bus mV,
`shunt_resistor` in microohms. The driver assumes 10 mOhm unless told otherwise, while common
breakout boards carry 100 mOhm: every figure is then ten times too large, so the default is
pointed out. Untested on hardware.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimtab_agent.energy.base import (
    EnergySensor,
    NoSensor,
    SensorFacts,
    find_hwmons,
    read_number,
    read_number_or,
)
from trimtab_agent.energy.sampled import Sampled
from trimtab_protocol.measurement import SensorKind

DEFAULT_SHUNT_UOHM = 10_000


@dataclass(frozen=True)
class Chip:
    """What the data sheet says: step of the shunt voltage, and error in proportion."""

    shunt_step_uv: float
    gain_ratio: float


CHIPS = {
    "ina219": Chip(10.0, 0.01),
    "ina220": Chip(10.0, 0.01),
    "ina226": Chip(2.5, 0.001),
    "ina230": Chip(2.5, 0.003),
    "ina231": Chip(2.5, 0.005),
    "ina238": Chip(5.0, 0.005),
    "ina260": Chip(2.5, 0.0015),
}
INTERNAL_SHUNT_UOHM = {"ina260": 2000.0}
USUAL_INTERVAL_S = 0.0681  # the driver's worst conversion time


def open_ina2xx(root: Path = Path("/")) -> EnergySensor | NoSensor:
    """The first such chip, or why there is none."""
    chips = find_hwmons(root, frozenset(CHIPS))
    if not chips:
        return NoSensor("no INA219/226/260: no such chip in /sys/class/hwmon")
    name, folder = chips[0]
    try:
        read_number(folder / "power1_input")
    except (OSError, ValueError) as error:
        return NoSensor(f"{name} cannot be read: {error}")
    return Sampled(_facts(name, folder), lambda: read_number(folder / "power1_input") / 1000.0)


def _facts(name: str, folder: Path) -> SensorFacts:
    shunt = INTERNAL_SHUNT_UOHM.get(name) or read_number_or(folder / "shunt_resistor", 0.0)
    bus_mv = read_number_or(folder / "in1_input", 5000.0)
    step_mw = bus_mv * CHIPS[name].shunt_step_uv / (shunt or DEFAULT_SHUNT_UOHM)
    warning = ""
    if shunt == DEFAULT_SHUNT_UOHM:
        warning = (
            "shunt_resistor is the driver's default of 10 mOhm; if the board carries another, "
            "write its microohms into shunt_resistor"
        )
    return SensorFacts(
        name=f"ina2xx:{name}",
        scope="board",
        kind=SensorKind.SAMPLED,
        resolution_mw=step_mw,
        gain_ratio=CHIPS[name].gain_ratio,
        update_interval_s=read_number_or(folder / "update_interval", USUAL_INTERVAL_S * 1000.0)
        / 1000.0,
        warning=warning,
    )
