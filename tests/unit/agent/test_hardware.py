"""What a device is, read from trees as real boards have them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from support import board_layouts as boards
from trimtab_agent.hardware import (
    UNKNOWN_BOOT_ID,
    condition_facts,
    derive_device_class,
    fingerprint,
    read_container,
    read_governor,
    read_hardware,
    read_load_average_1m,
    read_turbo,
)
from trimtab_protocol.manifest import RuntimeName
from trimtab_protocol.messages import RuntimeFact

PI4_CORE = """\
processor	: {number}
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3

"""
PI4_TAIL = """\
Hardware	: BCM2835
Revision	: c03114
Serial		: 100000000abcdef0
Model		: Raspberry Pi 4 Model B Rev 1.4
"""
ORIN_CORE = """\
processor	: {number}
model name	: ARMv8 Processor rev 1 (v8l)
CPU implementer	: 0x41
CPU part	: 0xd42

"""
PC_CORE = """\
processor	: {number}
vendor_id	: GenuineIntel
model name	: Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz
flags		: fpu vme de
power management:

"""
RUNTIMES = (RuntimeFact(name=RuntimeName.ONNXRUNTIME, version="1.23.0", package="onnxruntime"),)


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def pi4(root: Path, boot_id: str = "boot-1") -> Path:
    cores = "".join(PI4_CORE.format(number=number) for number in range(4))
    return write_tree(
        root,
        {
            "proc/cpuinfo": cores + PI4_TAIL,
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/meminfo": "MemTotal:        3885396 kB\nMemFree:  100 kB\n",
            "proc/loadavg": "0.25 0.30 0.10 1/200 999\n",
            "proc/sys/kernel/random/boot_id": boot_id + "\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        },
    )


def test_a_raspberry_pi_4_is_known_by_its_device_tree(tmp_path: Path) -> None:
    found = read_hardware(pi4(tmp_path))
    assert found.board == "Raspberry Pi 4 Model B Rev 1.4"
    assert found.cpu == "Raspberry Pi 4 Model B Rev 1.4"
    assert found.cpu_parts == ("0xd08",)
    assert found.cores == 4
    assert found.memory_total_bytes == 3885396 * 1024
    assert found.boot_id == "boot-1"
    assert derive_device_class(found, 4) == "raspberry-pi-4-model-b-rev-1-4-t4"
    assert read_governor(tmp_path) == "ondemand"
    assert read_load_average_1m(tmp_path) == 0.25


def test_a_jetson_with_two_kinds_of_cores_lists_both(tmp_path: Path) -> None:
    cores = "".join(ORIN_CORE.format(number=number) for number in range(6))
    cores += ORIN_CORE.format(number=6).replace("0xd42", "0xd05")
    write_tree(
        tmp_path,
        {
            "proc/cpuinfo": cores,
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        },
    )
    found = read_hardware(tmp_path)
    assert found.board == "NVIDIA Jetson Orin Nano Developer Kit"
    assert found.cpu == "ARMv8 Processor rev 1 (v8l)"
    assert found.cpu_parts == ("0xd05", "0xd42")
    assert found.cores == 7
    assert derive_device_class(found, 6) == "nvidia-jetson-orin-nano-developer-kit-t6"


def test_a_pc_is_known_by_what_its_firmware_says(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            "proc/cpuinfo": PC_CORE.format(number=0) + PC_CORE.format(number=1),
            "sys/class/dmi/id/sys_vendor": "LENOVO\n",
            "sys/class/dmi/id/product_name": "20L6S0\n",
        },
    )
    found = read_hardware(tmp_path)
    assert found.board == "LENOVO 20L6S0"
    assert found.cpu == "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz"
    assert found.cpu_parts == ()
    assert found.cores == 2


def test_a_field_without_a_value_does_not_take_the_next_line_for_its_own(tmp_path: Path) -> None:
    write_tree(tmp_path, {"proc/cpuinfo": "processor : 0\nmodel name\t:\nstepping\t: 3\n"})
    assert read_hardware(tmp_path).cpu == ""


def test_where_nothing_can_be_read_everything_is_said_to_be_unknown(tmp_path: Path) -> None:
    found = read_hardware(tmp_path)
    assert (found.board, found.cpu, found.cpu_parts) == ("", "", ())
    assert found.memory_total_bytes is None
    assert found.boot_id == UNKNOWN_BOOT_ID
    assert found.cores >= 1
    assert read_governor(tmp_path) is None
    assert read_load_average_1m(tmp_path) is None
    assert derive_device_class(replace(found, machine="aarch64"), 1) == "aarch64-t1"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Raspberry Pi 5", "raspberry-pi-5-t2"),
        ("  (R)  ", "r-t2"),
        ("板", "device-t2"),
        ("x" * 100, "x" * 48 + "-t2"),
        ("y" * 47 + "  z", "y" * 47 + "-t2"),
    ],
)
def test_a_class_is_a_name_of_the_protocol_whatever_the_board_calls_itself(
    tmp_path: Path, label: str, expected: str
) -> None:
    found = replace(read_hardware(tmp_path), board=label)
    assert derive_device_class(found, 2) == expected
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", expected)


def test_a_reboot_does_not_change_the_fingerprint(tmp_path: Path) -> None:
    first = read_hardware(pi4(tmp_path, "boot-1"))
    second = read_hardware(pi4(tmp_path, "boot-2"))
    assert first.boot_id != second.boot_id
    assert fingerprint(first, 4, RUNTIMES) == fingerprint(second, 4, RUNTIMES)


def test_whatever_decides_how_a_device_measures_changes_the_fingerprint(tmp_path: Path) -> None:
    found = read_hardware(pi4(tmp_path))
    newer = (RUNTIMES[0].model_copy(update={"version": "1.24.0"}),)
    prints = {
        fingerprint(found, 4, RUNTIMES),
        fingerprint(found, 2, RUNTIMES),
        fingerprint(found, 4, newer),
        fingerprint(found, 4, ()),
        fingerprint(replace(found, cpu_parts=("0xd0b",)), 4, RUNTIMES),
        fingerprint(replace(found, memory_total_bytes=1), 4, RUNTIMES),
        fingerprint(replace(found, kernel="other"), 4, RUNTIMES),
    }
    assert len(prints) == 7


def test_the_order_in_which_runtimes_are_found_does_not_matter(tmp_path: Path) -> None:
    found = read_hardware(pi4(tmp_path))
    two = (*RUNTIMES, RuntimeFact(name=RuntimeName.LITERT, version="2.1", package="ai-edge-litert"))
    assert fingerprint(found, 4, two) == fingerprint(found, 4, two[::-1])


@pytest.mark.parametrize(
    ("board", "soc", "system", "mode"),
    [
        (boards.pi5, "brcm,bcm2712", "Debian GNU/Linux 13 (trixie)", None),
        (boards.pi4, "brcm,bcm2711", "Debian GNU/Linux 12 (bookworm)", None),
        (boards.orin_nano, "nvidia,tegra234", "Ubuntu 22.04.5 LTS", "25W"),
        (boards.agx_orin, "nvidia,tegra234", "Ubuntu 22.04.4 LTS", "MAXN"),
        (boards.nano_jetpack4, "nvidia,tegra210", "Ubuntu 18.04.6 LTS", "MAXN"),
        (boards.laptop, "", "Ubuntu 24.04.1 LTS", None),
        (boards.nothing, "", "", None),
    ],
)
def test_a_boards_chip_system_and_power_mode_are_known(
    tmp_path: Path, board: Callable[[Path], Path], soc: str, system: str, mode: str | None
) -> None:
    facts = condition_facts(board(tmp_path))
    assert (facts["soc"], facts["operating_system"], facts["power_mode"]) == (soc, system, mode)
    found = read_hardware(tmp_path)
    assert (found.soc, found.operating_system, found.power_mode) == (soc, system, mode)


@pytest.mark.parametrize(
    ("board", "limits"),
    [
        (boards.pi5, (1500000, 2400000, False)),
        (boards.orin_nano, (729600, 1510400, False)),
        (boards.agx_orin, (2201600, 2201600, True)),
        (boards.nothing, (None, None, None)),
    ],
)
def test_clocks_are_pinned_where_the_lowest_is_the_highest(
    tmp_path: Path,
    board: Callable[[Path], Path],
    limits: tuple[int | None, int | None, bool | None],
) -> None:
    facts = condition_facts(board(tmp_path))
    found = (facts["min_clock_khz"], facts["max_clock_khz"], facts["are_clocks_pinned"])
    assert found == limits


def test_only_the_limits_of_the_used_cpus_count(tmp_path: Path) -> None:
    folder = boards.agx_orin(tmp_path) / "sys/devices/system/cpu/cpu1/cpufreq"
    (folder / "scaling_min_freq").write_text("729600 kHz\n")
    assert condition_facts(tmp_path, (0, 11))["are_clocks_pinned"] is True
    assert condition_facts(tmp_path, (0, 1))["are_clocks_pinned"] is False
    boards.make_unreadable(folder / "scaling_min_freq")
    assert condition_facts(tmp_path, (1,))["are_clocks_pinned"] is None


def test_a_power_mode_without_a_name_is_given_by_its_number(tmp_path: Path) -> None:
    boards.make_unreadable(boards.orin_nano(tmp_path) / "etc/nvpmodel.conf")
    assert read_hardware(tmp_path).power_mode == "mode 1"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("intel_pstate/no_turbo", "0\n", True),
        ("intel_pstate/no_turbo", "1\n", False),
        ("cpufreq/boost", "1\n", True),
        ("cpufreq/boost", "0\n", False),
        ("cpufreq/boost", "", None),
    ],
)
def test_turbo_is_read_from_whichever_switch_there_is(
    tmp_path: Path, name: str, text: str, expected: bool | None
) -> None:
    write_tree(tmp_path, {f"sys/devices/system/cpu/{name}": text})
    assert read_turbo(tmp_path) is expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({".dockerenv": ""}, True),
        ({"run/.containerenv": ""}, True),
        ({"proc/1/cgroup": "1:name=systemd:/docker/0123\n"}, True),
        ({"proc/1/cgroup": "0::/init.scope\n"}, False),
        ({"proc/1/cgroup": "0::/\n"}, None),
        ({}, None),
    ],
)
def test_a_container_is_told_apart_where_it_can_be(
    tmp_path: Path, files: dict[str, str], expected: bool | None
) -> None:
    assert read_container(write_tree(tmp_path, files)) is expected


def test_nothing_of_the_moment_changes_the_fingerprint(tmp_path: Path) -> None:
    before = fingerprint(read_hardware(boards.orin_nano(tmp_path)), 4, RUNTIMES)
    cpu0 = "sys/devices/system/cpu/cpu0/cpufreq/"
    write_tree(
        tmp_path,
        {
            cpu0 + "scaling_governor": "performance\n",
            cpu0 + "scaling_min_freq": "1510400\n",
            cpu0 + "scaling_max_freq": "729600\n",
            "sys/class/thermal/thermal_zone0/temp": "95000\n",
            "sys/class/thermal/cooling_device1/cur_state": "5\n",
            "sys/class/hwmon/hwmon3/oc1_event_cnt": "99\n",
            "proc/loadavg": "9.00 9.00 9.00 9/200 999\n",
            "proc/meminfo": "MemTotal: 7802000 kB\nMemAvailable: 1 kB\n",
            "proc/sys/kernel/random/boot_id": "boot-2\n",
        },
    )
    assert fingerprint(read_hardware(tmp_path), 4, RUNTIMES) == before


def test_another_power_mode_is_another_fingerprint(tmp_path: Path) -> None:
    before = fingerprint(read_hardware(boards.orin_nano(tmp_path)), 4, RUNTIMES)
    write_tree(tmp_path, {"var/lib/nvpmodel/status": "pmode:0000\n"})
    assert fingerprint(read_hardware(tmp_path), 4, RUNTIMES) != before


def test_this_very_machine_can_be_read() -> None:
    found = read_hardware()
    assert found.cores >= 1
    assert found.memory_total_bytes is not None
    assert found.boot_id != UNKNOWN_BOOT_ID
