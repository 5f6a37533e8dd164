"""The three-channel monitor of Jetson modules: hwmon since JetPack 5, IIO on JetPack 4.

hwmon (Documentation/hwmon/ina3221.rst): `in[123]_input` mV, `curr[123]_input` mA, no power file.
Channels are known by `in[123]_label`: "NC" is not connected, `in7` is a sum of shunt voltages and
no rail. Where VDD_IN (or POM_5V_IN) is there it is the whole module's input and contains the
other rails; where it is not, as on the AGX Orin with its two chips, all rails are added up.
The chip averages recursively over `samples`; the time constant is then about `update_interval`.
Limits of error: data sheet INA3221 (Texas Instruments SBOS576), electrical characteristics.
Untested on hardware.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab_agent.energy.base import (
    EnergySensor,
    NoSensor,
    SensorFacts,
    find_hwmons,
    read_number,
    read_number_or,
    read_text,
)
from trimtab_agent.energy.sampled import Sampled
from trimtab_protocol.measurement import SensorKind

MODULE_INPUTS = ("VDD_IN", "POM_5V_IN")
SHUNT_STEP_UV = 40.0
SHUNT_OFFSET_UV = 80.0
GAIN_RATIO = 0.0025
USUAL_SHUNT_UOHM = 5000.0
CHANNEL_CYCLE_MS = 2.2  # the driver's usual 1.1 ms each for bus and shunt voltage


@dataclass(frozen=True)
class Rail:
    """One supply rail.

    Args:
        label: As the board names it.
        read_mw: One reading.
        shunt_uohm: Resistor over which the current is measured.
        read_mv: Its voltage.
    """

    label: str
    read_mw: Callable[[], float]
    shunt_uohm: float
    read_mv: Callable[[], float]


def open_ina3221(root: Path = Path("/")) -> EnergySensor | NoSensor:
    """Find the hwmon chips, or say why there are none."""
    chips = [folder for _, folder in find_hwmons(root, frozenset({"ina3221"}))]
    if not chips:
        return NoSensor("no INA3221: no such chip in /sys/class/hwmon")
    rails = [rail for chip in chips for rail in _hwmon_rails(chip)]
    return _open("ina3221", rails, max(_filter_s(chip) for chip in chips))


def open_ina3221_iio(root: Path = Path("/")) -> EnergySensor | NoSensor:
    """Find JetPack 4's devices, or say why there are none."""
    drivers = root / "sys/bus/i2c/drivers/ina3221x"
    devices = sorted({*drivers.glob("*/iio:device*"), *drivers.glob("*/iio_device*")})
    if not devices:
        return NoSensor("no INA3221 of JetPack 4: no device in /sys/bus/i2c/drivers/ina3221x")
    return _open("ina3221x", [rail for device in devices for rail in _iio_rails(device)], 0.0)


def _open(chip: str, rails: Sequence[Rail], filter_s: float) -> EnergySensor | NoSensor:
    whole = [rail for rail in rails if rail.label in MODULE_INPUTS]
    used = whole[:1] or list(rails)
    if not used:
        return NoSensor(f"{chip} is there, but none of its channels is connected")
    try:
        steps_mw = [rail.read_mv() * SHUNT_STEP_UV / rail.shunt_uohm for rail in used]
        _sum_mw(used)
    except (OSError, ValueError) as error:
        return NoSensor(f"{chip} cannot be read: {error}")
    step_mw = sum(step * step for step in steps_mw) ** 0.5
    facts = SensorFacts(
        name=f"{chip}:" + "+".join(rail.label for rail in used),
        scope="module" if whole else "rails",
        kind=SensorKind.SAMPLED,
        resolution_mw=step_mw,
        offset_mw=sum(steps_mw) * SHUNT_OFFSET_UV / SHUNT_STEP_UV,
        gain_ratio=GAIN_RATIO,
        filter_s=filter_s,
    )
    return Sampled(facts, lambda: _sum_mw(used))


def _sum_mw(rails: Sequence[Rail]) -> float:
    return sum(rail.read_mw() for rail in rails)


def _hwmon_rails(chip: Path) -> list[Rail]:
    rails = []
    for number in (1, 2, 3):
        label = read_text(chip / f"in{number}_label")
        is_on = read_number_or(chip / f"in{number}_enable", 1) != 0
        if not is_connected(label) or not is_on:
            continue
        volts, amps = chip / f"in{number}_input", chip / f"curr{number}_input"
        shunt = read_number_or(chip / f"shunt{number}_resistor", USUAL_SHUNT_UOHM)
        rails.append(Rail(label, _product(volts, amps), shunt, _reader(volts)))
    return rails


def _iio_rails(device: Path) -> list[Rail]:
    rails = []
    for number in (0, 1, 2):
        label = read_text(device / f"rail_name_{number}")
        if not is_connected(label):
            continue
        power = device / f"in_power{number}_input"
        volts = device / f"in_voltage{number}_input"
        amps = device / f"in_current{number}_input"
        read_mw = _reader(power) if power.exists() else _product(volts, amps)
        rails.append(Rail(label, read_mw, USUAL_SHUNT_UOHM, _voltage(volts)))
    return rails


def is_connected(label: str) -> bool:
    """Whether a label names a rail; boards mark unused channels with the word NC."""
    return bool(label) and "NC" not in re.split(r"[^A-Za-z0-9]+", label.upper())


def _filter_s(chip: Path) -> float:
    samples = read_number_or(chip / "samples", 1)
    if samples <= 1:
        return 0.0
    return read_number_or(chip / "update_interval", 3 * samples * CHANNEL_CYCLE_MS) / 1000.0


def _reader(path: Path) -> Callable[[], float]:
    return lambda: read_number(path)


def _voltage(path: Path) -> Callable[[], float]:
    """The resolution is taken for 5 V where the device tells no voltage."""
    return lambda: read_number_or(path, 5000.0)


def _product(volts: Path, amps: Path) -> Callable[[], float]:
    return lambda: read_number(volts) * read_number(amps) / 1000.0  # mV * mA = uW
