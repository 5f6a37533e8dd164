"""Trees of power sensors as boards have them, for tests without the boards.

Made after kernel documentation, device trees and readings that owners published.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from support.board_layouts import write_tree

HWMON = "sys/class/hwmon/"
IIO = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/"
SUPPLY = "sys/class/power_supply/"
RAPL = "sys/class/powercap/"

PMIC_SUM_MW = 10_799.9
PMIC_ANSWER = """\
 3V7_WL_SW_A current(0)=0.00000000A
   3V3_SYS_A current(1)=0.06245952A
   1V8_SYS_A current(2)=0.16102850A
  DDR_VDD2_A current(3)=0.00780744A
  DDR_VDDQ_A current(4)=0.00000000A
   1V1_SYS_A current(5)=0.17566740A
    0V8_SW_A current(6)=0.32791250A
  VDD_CORE_A current(7)=10.87674000A
   3V3_DAC_A current(17)=0.00036630A
   3V3_ADC_A current(18)=0.00042735A
   0V8_AON_A current(16)=0.00579975A
      HDMI_A current(22)=0.01367520A
 3V7_WL_SW_V volt(8)=3.79999600V
   3V3_SYS_V volt(9)=3.30632200V
   1V8_SYS_V volt(10)=1.79828900V
  DDR_VDD2_V volt(11)=1.10292900V
  DDR_VDDQ_V volt(12)=0.60476130V
   1V1_SYS_V volt(13)=1.10439400V
    0V8_SW_V volt(14)=0.80256330V
  VDD_CORE_V volt(15)=0.89745940V
   3V3_DAC_V volt(20)=3.30494200V
   3V3_ADC_V volt(21)=3.30219400V
   0V8_AON_V volt(19)=0.79736190V
      HDMI_V volt(23)=5.07056000V
     EXT5V_V volt(24)=5.06788000V
      BATT_V volt(25)=3.01110800V
"""


def orin_nano(root: Path) -> Path:
    """Jetson Orin Nano: one chip, VDD_IN 4984 mV x 1856 mA = 9250.304 mW."""
    chip = HWMON + "hwmon1/"
    rails = (("VDD_IN", 4984, 1856), ("VDD_CPU_GPU_CV", 4976, 400), ("VDD_SOC", 4976, 500))
    return write_tree(
        root,
        {
            HWMON + "hwmon0/name": "pwmfan\n",
            **_chip(chip, rails),
            chip + "in7_label": "sum of shunt voltages\n",
            chip + "in7_input": "13800\n",
            chip + "samples": "512\n",
            chip + "update_interval": "430\n",
        },
    )


def agx_orin(root: Path) -> Path:
    """Jetson AGX Orin: two chips without VDD_IN; 5000 + 3000 + 5500 + 500 = 14000 mW."""
    one = (("VDD_GPU_SOC", 5000, 1000), ("VDD_CPU_CV", 5000, 600), ("VIN_SYS_5V0", 5000, 1100))
    two = (("NC", 5000, 9000), ("VDDQ_VDD2_1V8AO", 5000, 100), ("NC", 5000, 9000))
    return write_tree(root, {**_chip(HWMON + "hwmon2/", one), **_chip(HWMON + "hwmon3/", two)})


def nano_jetpack4(root: Path) -> Path:
    """Jetson Nano with JetPack 4; values with their unit behind them."""
    return write_tree(
        root,
        {
            IIO + "rail_name_0": "POM_5V_IN\n",
            IIO + "in_power0_input": "2875 mw\n",
            IIO + "in_voltage0_input": "5000 mv\n",
            IIO + "in_current0_input": "575 ma\n",
            IIO + "crit_current_limit_0": "32760 ma\n",
            IIO + "rail_name_1": "POM_5V_GPU\n",
            IIO + "in_power1_input": "0\n",
            IIO + "rail_name_2": "POM_5V_CPU\n",
            IIO + "in_power2_input": "549\n",
        },
    )


def pi5(root: Path) -> Path:
    """Raspberry Pi 5 with the mailbox device."""
    return write_tree(
        root,
        {
            "proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
            "dev/vcio": "",
            HWMON + "hwmon3/name": "rpi_volt\n",
        },
    )


def firmware(answer: str, status: int = 0) -> Callable[[int, int, bytearray], object]:
    """An ioctl that answers as the firmware does."""

    def ioctl(handle: int, request: int, buffer: bytearray) -> object:
        assert request in (0xC0086400, 0xC0046400)
        assert struct.unpack_from("=2I", buffer, 8) == (0x00030080, 4096)
        assert struct.unpack_from("=I", buffer, 0) == (len(buffer),)
        text = answer.encode()
        buffer[24 : 24 + len(text) + 1] = text + b"\0"
        struct.pack_into("=I", buffer, 20, status)
        return 0

    return ioctl


def pi4_ina219(root: Path, shunt_uohm: int = 100_000) -> Path:
    """Raspberry Pi 4 with an INA219 in its 5 V supply: 3.1 W."""
    chip = HWMON + "hwmon2/"
    return write_tree(
        root,
        {
            "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
            HWMON + "hwmon0/name": "cpu_thermal\n",
            HWMON + "hwmon0/temp1_input": "51000\n",
            HWMON + "hwmon1/name": "rpi_volt\n",
            HWMON + "hwmon1/in0_lcrit_alarm": "0\n",
            chip + "name": "ina219\n",
            chip + "in1_input": "5000\n",
            chip + "power1_input": "3100000\n",
            chip + "shunt_resistor": f"{shunt_uohm}\n",
        },
    )


def laptop_rapl(root: Path, energy_uj: int = 1000, range_uj: int = 262_143_328_850) -> Path:
    """Laptop: psys around a package around core and uncore."""
    zones = {
        "intel-rapl:0": "package-0",
        "intel-rapl:0:0": "core",
        "intel-rapl:0:1": "uncore",
        "intel-rapl:1": "psys",
    }
    files = {}
    for zone, name in zones.items():
        files[f"{RAPL}{zone}/name"] = name + "\n"
        files[f"{RAPL}{zone}/energy_uj"] = f"{energy_uj}\n"
        files[f"{RAPL}{zone}/max_energy_range_uj"] = f"{range_uj}\n"
    return write_tree(root, files)


def laptop_battery(root: Path, status: str = "Discharging") -> Path:
    """Laptop: -1.5 A at 12 V, a mouse with a battery of its own, and a negotiated USB-C supply."""
    return write_tree(
        root,
        {
            SUPPLY + "BAT0/type": "Battery\n",
            SUPPLY + "BAT0/status": status + "\n",
            SUPPLY + "BAT0/current_now": "-1500000\n",
            SUPPLY + "BAT0/voltage_now": "12000000\n",
            SUPPLY + "hidpp_battery_0/type": "Battery\n",
            SUPPLY + "hidpp_battery_0/scope": "Device\n",
            SUPPLY + "hidpp_battery_0/status": "Discharging\n",
            SUPPLY + "hidpp_battery_0/power_now": "99000000\n",
            SUPPLY + "ucsi-source-psy-1/type": "Battery\n",
            SUPPLY + "ucsi-source-psy-1/status": "Discharging\n",
            SUPPLY + "ucsi-source-psy-1/power_now": "99000000\n",
        },
    )


def _chip(folder: str, rails: tuple[tuple[str, int, int], ...]) -> dict[str, str]:
    files = {folder + "name": "ina3221\n"}
    for number, (label, millivolts, milliamps) in enumerate(rails, 1):
        files[f"{folder}in{number}_label"] = label + "\n"
        files[f"{folder}in{number}_input"] = f"{millivolts}\n"
        files[f"{folder}curr{number}_input"] = f"{milliamps}\n"
        files[f"{folder}shunt{number}_resistor"] = "5000\n"
    return files
