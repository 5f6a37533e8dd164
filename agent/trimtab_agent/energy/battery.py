"""A battery that is being discharged feeds the whole device, so its power is the device's.

Layout (Documentation/ABI/testing/sysfs-class-power): `power_now` uW, or `current_now` uA (its sign
differs between drivers) times `voltage_now` uV. Gauges renew their figures every 0.25 to 60 s, so
only changes count as samples, and a gauge that is too slow for the windows is found out. While it
charges, or rests on the mains, the figures say nothing about the device. `ucsi-source-psy-*` is
what USB-C negotiated, not measured; scope Device is the battery of a mouse or a headset. Untested
on hardware.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimtab_agent.energy.base import EnergySensor, NoSensor, SensorFacts, read_number, read_text
from trimtab_agent.energy.sampled import Sampled
from trimtab_protocol.measurement import SensorKind

FOLDER = "sys/class/power_supply"
NEGOTIATED = "ucsi-source-psy-"
DISCHARGING = "Discharging"
GAUGE_INTERVAL_S = 1.0


def open_battery(root: Path = Path("/")) -> EnergySensor | NoSensor:
    """The batteries that feed this device, or why none does."""
    batteries = [path for path in sorted((root / FOLDER).glob("*")) if _is_system_battery(path)]
    if not batteries:
        return NoSensor("no battery in /sys/class/power_supply")
    used = [path for path in batteries if read_text(path / "status") == DISCHARGING]
    if not used:
        found = ", ".join(f"{path.name} {read_text(path / 'status')}" for path in batteries)
        return NoSensor(f"the battery does not feed the device ({found}); unplug the supply")
    try:
        _sum_mw(used)
    except (OSError, ValueError) as error:
        return NoSensor(f"the battery cannot be read: {error}")
    facts = SensorFacts(
        name="battery:" + "+".join(path.name for path in used),
        scope="board",
        kind=SensorKind.SAMPLED,
        update_interval_s=GAUGE_INTERVAL_S,
        is_slow=True,
    )
    return Sampled(facts, lambda: _sum_mw(used))


def _is_system_battery(path: Path) -> bool:
    if path.name.startswith(NEGOTIATED) or read_text(path / "scope") == "Device":
        return False
    return read_text(path / "type") == "Battery"


def _sum_mw(batteries: Sequence[Path]) -> float:
    return sum(_power_mw(path) for path in batteries)


def _power_mw(path: Path) -> float:
    status = read_text(path / "status")
    if status != DISCHARGING:
        raise ValueError(f"{path.name} is not discharging any more but {status or 'unreadable'}")
    if (path / "power_now").exists():
        return abs(read_number(path / "power_now")) / 1000.0
    amps_ua, volts_uv = read_number(path / "current_now"), read_number(path / "voltage_now")
    return abs(amps_ua) * volts_uv / 1e9  # uA * uV = pW
