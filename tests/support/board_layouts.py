"""File trees as boards have them below /sys and /proc, for tests without the boards.

Made after kernel documentation, device trees and logs that owners published. Each function writes
one board into a folder and returns the folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

CPU = "sys/devices/system/cpu/cpu{number}/"
THERMAL = "sys/class/thermal/"
HWMON = "sys/class/hwmon/"

ARM_CORE = "processor\t: {number}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n"


def write_tree(root: Path, files: Mapping[str, str]) -> Path:
    """Write files, with their folders."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def make_unreadable(path: Path) -> None:
    """A reading fails with an OSError from now on, for root too."""
    path.unlink(missing_ok=True)
    path.mkdir(parents=True)


def pi5(root: Path) -> Path:
    """Raspberry Pi 5, 8 GB, 64-bit system with 16 kB pages, idle, governor ondemand."""
    clocks = (1500000, 1800000, 2400000)
    return write_tree(
        root,
        {
            **_arm_cpus(4, "0xd0b", clocks, "ondemand"),
            **_zones({"cpu-thermal": "46850"}),
            **_cooler(0, "cpufreq-cpu0", 0),
            **_memory(8245568, 7340032),
            **_os("Debian GNU/Linux 13 (trixie)"),
            HWMON + "hwmon0/name": "cpu_thermal\n",
            HWMON + "hwmon1/name": "rp1_adc\n",
            HWMON + "hwmon3/name": "rpi_volt\n",
            HWMON + "hwmon3/in0_lcrit_alarm": "0\n",
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
            "dev/vcio": "",
        },
    )


def pi4(root: Path) -> Path:
    """Raspberry Pi 4, 4 GB; no rpi_volt, as where the kernel has no driver for it."""
    clocks = (600000, 1000000, 1500000, 1800000)
    return write_tree(
        root,
        {
            **_arm_cpus(4, "0xd08", clocks, "performance"),
            **_zones({"cpu-thermal": "51121"}),
            **_memory(3885396, 3400000),
            **_os("Debian GNU/Linux 12 (bookworm)"),
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
            "dev/vcio": "",
        },
    )


def orin_nano(root: Path) -> Path:
    """Jetson Orin Nano under load, JetPack 6; cv0-thermal is off."""
    clocks = (729600, 1344000, 1510400, 1728000)
    layout = {
        **_arm_cpus(6, "0xd42", clocks, "schedutil", highest_allowed=1510400),
        **_zones({"cpu-thermal": "63625", "gpu-thermal": "62500", "cv0-thermal": ""}),
        THERMAL + "thermal_zone8/type": "tj-thermal\n",
        THERMAL + "thermal_zone8/temp": "63781\n",
        **_cooler(0, "pwm-fan", 2),
        **_cooler(1, "thermal-cpufreq-0", 0),
        **_soctherm(3, 1, 0, 2),
        **_memory(7802000, 5000000),
        **_os("Ubuntu 22.04.5 LTS"),
        HWMON + "hwmon0/name": "pwmfan\n",
        HWMON + "hwmon1/name": "ina3221\n",
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0"
        "nvidia,tegra234\0",
        "var/lib/nvpmodel/status": "pmode:0001 fmode:fanNull\n",
        "etc/nvpmodel.conf": "# modes\n< POWER_MODEL ID=0 NAME=15W >\n"
        "CPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=25W >\nCPU_ONLINE CORE_0 1\n",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, "
        "EABI: aarch64, DATE: Wed Jan  8 01:49:37 UTC 2025\n",
    }
    write_tree(root, layout)
    make_unreadable(root / THERMAL / "thermal_zone2/temp")
    return root


def agx_orin(root: Path) -> Path:
    """Jetson AGX Orin with twelve cores in MAXN, clocks pinned by jetson_clocks."""
    clocks = (729600, 2201600)
    pinned = {
        CPU.format(number=number) + "cpufreq/scaling_min_freq": "2201600\n" for number in range(12)
    }
    return write_tree(
        root,
        {
            **_arm_cpus(12, "0xd42", clocks, "performance"),
            **pinned,
            **_zones({"cpu-thermal": "48500", "tj-thermal": "49000"}),
            **_soctherm(5, 0, 0, 0),
            **_memory(64349596, 60000000),
            **_os("Ubuntu 22.04.4 LTS"),
            "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
            "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0",
            "var/lib/nvpmodel/status": "pmode:0000\n",
            "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n",
        },
    )


def nano_jetpack4(root: Path) -> Path:
    """Jetson Nano, JetPack 4: kernel 4.9, its PMIC zone always says 100 degrees, no soctherm_oc."""
    clocks = (102000, 921600, 1479000)
    zones = {"AO-therm": "40500", "CPU-therm": "31500", "PMIC-Die": "100000"}
    return write_tree(
        root,
        {
            **_arm_cpus(4, "0xd07", clocks, "schedutil"),
            **_zones(zones),
            **_memory(4059412, 2500000),
            **_os("Ubuntu 18.04.6 LTS"),
            "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
            "proc/device-tree/compatible": "nvidia,p3449-0000-b00+p3448-0000-b00\0nvidia,tegra210\0",
            "var/lib/nvpmodel/status": "pmode:0000 fmode:fanNull\n",
            "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=5W >\n",
        },
    )


def laptop(root: Path) -> Path:
    """An x86 laptop: intel_pstate keeps no time_in_state, RAPL for root only."""
    cpus: dict[str, str] = {}
    for number in range(4):
        folder = CPU.format(number=number)
        cpus[folder + "cpufreq/scaling_governor"] = "powersave\n"
        cpus[folder + "cpufreq/scaling_min_freq"] = "400000\n"
        cpus[folder + "cpufreq/scaling_max_freq"] = "3400000\n"
        cpus[folder + "thermal_throttle/core_throttle_count"] = f"{number}\n"
        cpus[folder + "thermal_throttle/package_throttle_count"] = "7\n"
    core = "processor\t: {number}\nmodel name\t: Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz\n\n"
    write_tree(
        root,
        {
            **cpus,
            **_zones({"acpitz": "44000", "x86_pkg_temp": "47000"}),
            THERMAL + "thermal_zone2/type": "acpitz\n",
            THERMAL + "thermal_zone2/temp": "27800\n",
            THERMAL + "thermal_zone3/type": "iwlwifi_1\n",
            **_cooler(0, "Processor", 0),
            **_cooler(1, "intel_powerclamp", -1),
            **_memory(16000000, 12000000),
            **_os("Ubuntu 24.04.1 LTS"),
            "proc/cpuinfo": "".join(core.format(number=number) for number in range(4)),
            "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
            "sys/class/dmi/id/sys_vendor": "LENOVO\n",
            "sys/class/dmi/id/product_name": "20L6S0\n",
            "sys/class/powercap/intel-rapl:0/name": "package-0\n",
        },
    )
    make_unreadable(root / "sys/class/powercap/intel-rapl:0/energy_uj")
    return root


def nothing(root: Path) -> Path:
    """A machine that tells nothing, as some containers do."""
    return root


def spend(root: Path, cpu: int, khz: int, ticks: int) -> None:
    """Let a CPU run at a clock for so many units of 10 ms."""
    path = root / (CPU.format(number=cpu) + "cpufreq/stats/time_in_state")
    rows = [line.split() for line in path.read_text().splitlines()]
    path.write_text("".join(f"{a} {int(b) + (ticks if int(a) == khz else 0)}\n" for a, b in rows))


def _arm_cpus(
    count: int, part: str, clocks: tuple[int, ...], governor: str, highest_allowed: int = 0
) -> dict[str, str]:
    files = {"proc/cpuinfo": "".join(ARM_CORE.format(number=n, part=part) for n in range(count))}
    for number in range(count):
        folder = CPU.format(number=number)
        files[folder + "cpu_capacity"] = "1024\n"
        files[folder + "cpufreq/scaling_governor"] = governor + "\n"
        files[folder + "cpufreq/scaling_min_freq"] = f"{clocks[0]}\n"
        files[folder + "cpufreq/scaling_max_freq"] = f"{highest_allowed or clocks[-1]}\n"
        files[folder + "cpufreq/stats/time_in_state"] = "".join(f"{khz} 1000\n" for khz in clocks)
    return files


def _zones(zones: Mapping[str, str]) -> dict[str, str]:
    files: dict[str, str] = {}
    for number, (kind, temperature) in enumerate(zones.items()):
        files[f"{THERMAL}thermal_zone{number}/type"] = kind + "\n"
        files[f"{THERMAL}thermal_zone{number}/temp"] = temperature + "\n"
    return files


def _cooler(number: int, kind: str, state: int) -> dict[str, str]:
    folder = f"{THERMAL}cooling_device{number}/"
    return {folder + "type": kind + "\n", folder + "cur_state": f"{state}\n"}


def _soctherm(number: int, *counts: int) -> dict[str, str]:
    folder = f"{HWMON}hwmon{number}/"
    files = {f"{folder}oc{alarm}_event_cnt": f"{n}\n" for alarm, n in enumerate(counts, start=1)}
    return {folder + "name": "soctherm_oc\n", **files}


def _memory(total_kb: int, available_kb: int) -> dict[str, str]:
    return {
        "proc/meminfo": f"MemTotal: {total_kb} kB\nMemFree: 1000 kB\nMemAvailable: {available_kb} kB\n",
        "proc/loadavg": "0.10 0.10 0.10 1/200 999\n",
        "proc/sys/kernel/random/boot_id": "boot-1\n",
    }


def _os(name: str) -> dict[str, str]:
    return {"etc/os-release": f'PRETTY_NAME="{name}"\nID=linux\n'}
