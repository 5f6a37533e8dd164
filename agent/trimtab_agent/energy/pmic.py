"""The power chip of the Raspberry Pi 5 and Compute Module 5: `pmic_read_adc` of the firmware.

Lines such as `VDD_CORE_A current(7)=10.87674000A` and `VDD_CORE_V volt(15)=0.89745940V`. Current
and voltage are paired by name, because their indices differ; EXT5V and BATT have no current. The
sum is what the rails behind the chip take: not the 5 V loads (USB, HAT, NVMe, fan) and not the
chip's own loss. Untested on hardware.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from trimtab_agent.energy.base import (
    SHORTEST_INTERVAL_S,
    EnergySensor,
    NoSensor,
    SensorFacts,
    read_text,
)
from trimtab_agent.energy.sampled import Sampled
from trimtab_agent.pi_firmware import Ioctl, ask_firmware, call_ioctl, is_mailbox_usable
from trimtab_protocol.errors import StorageError
from trimtab_protocol.measurement import SensorKind

COMMAND = "pmic_read_adc"
CHIP = "brcm,bcm2712"
SPAWN_INTERVAL_S = 1.0
"""Starting `vcgencmd` for each reading costs more of the CPU than the mailbox does."""
CURRENT = re.compile(r"(\w+)_A\s+current\(\d+\)=(-?\d+(?:\.\d+)?)A")
VOLTAGE = re.compile(r"(\w+)_V\s+volt\(\d+\)=(-?\d+(?:\.\d+)?)V")


def open_pmic(root: Path = Path("/"), ioctl: Ioctl = call_ioctl) -> EnergySensor | NoSensor:
    """Ask once, or say why this cannot be asked."""
    if CHIP not in read_text(root / "proc/device-tree/compatible").split("\0"):
        return NoSensor("no PMIC: this is not a Raspberry Pi 5 or Compute Module 5")
    try:
        rails = parse_rails_mw(ask_firmware(COMMAND, root, ioctl))
    except (StorageError, ValueError) as error:
        return NoSensor(f"the PMIC cannot be read: {error}")
    names = frozenset(rails)

    def read_mw() -> float:
        now = parse_rails_mw(ask_firmware(COMMAND, root, ioctl))
        if frozenset(now) != names:
            raise ValueError(f"rails changed from {sorted(names)} to {sorted(now)}")
        return sum(now.values())

    facts = SensorFacts(
        name=f"pmic:{len(rails)} rails",
        scope="rails",
        kind=SensorKind.SAMPLED,
        update_interval_s=SHORTEST_INTERVAL_S if is_mailbox_usable(root) else SPAWN_INTERVAL_S,
        warning="without 5 V loads such as USB and NVMe, and without the chip's own loss",
    )
    return Sampled(facts, read_mw)


def parse_rails_mw(text: str) -> Mapping[str, float]:
    """Milliwatts per rail that has both a current and a voltage.

    Raises:
        ValueError: There is no such rail in the text.
    """
    volts = {name: float(value) for name, value in VOLTAGE.findall(text)}
    rails = {
        name: float(amps) * volts[name] * 1000.0
        for name, amps in CURRENT.findall(text)
        if name in volts
    }
    if not rails:
        raise ValueError(f"no rail with current and voltage in {text.strip()[:60]!r}")
    return rails
