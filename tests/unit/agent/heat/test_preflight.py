"""What speaks against measuring now."""

from __future__ import annotations

from pathlib import Path

from support import board_layouts as boards
from trimtab_agent.heat import preflight


def test_a_cool_idle_board_at_a_fixed_clock_has_no_complaints(tmp_path: Path) -> None:
    assert preflight(boards.pi4(tmp_path), (), lambda _: "throttled=0x50000") == ()


def test_where_nothing_can_be_read_nothing_is_complained_of(tmp_path: Path) -> None:
    assert preflight(boards.nothing(tmp_path)) == ()


def test_a_governor_that_changes_clocks_is_named_with_the_command(tmp_path: Path) -> None:
    (complaint,) = preflight(boards.pi5(tmp_path))
    assert "ondemand" in complaint
    assert "echo performance" in complaint


def test_only_the_cpus_that_will_be_used_matter(tmp_path: Path) -> None:
    boards.pi4(tmp_path)
    (tmp_path / boards.CPU.format(number=3) / "cpufreq/scaling_governor").write_text("ondemand\n")
    assert preflight(tmp_path, (0, 1)) == ()
    assert len(preflight(tmp_path, (3,))) == 1


def test_the_hottest_zone_is_named(tmp_path: Path) -> None:
    complaints = preflight(boards.orin_nano(tmp_path))
    assert any("tj-thermal is at 63.8 °C" in text for text in complaints)


def test_a_placeholder_of_100_degrees_is_not_hot(tmp_path: Path) -> None:
    assert not any("°C" in text for text in preflight(boards.nano_jetpack4(tmp_path)))


def test_under_voltage_and_throttling_now_are_told_with_their_remedies(tmp_path: Path) -> None:
    found = preflight(boards.pi4(tmp_path), (), lambda _: "throttled=0x5")
    assert len(found) == 2
    assert "power supply" in found[0]
    assert "cool" in found[1]


def test_other_work_is_a_complaint_and_a_load_that_is_over_is_not(tmp_path: Path) -> None:
    load = boards.pi4(tmp_path) / "proc/loadavg"
    load.write_text("3.90 2.0 1.0 4/210 77\n")
    (complaint,) = preflight(tmp_path)
    assert "load 3.90 on 4 CPUs, 3 threads" in complaint
    load.write_text("3.90 2.0 1.0 1/210 77\n")
    assert preflight(tmp_path) == ()


def test_little_available_memory_is_a_complaint(tmp_path: Path) -> None:
    boards.write_tree(
        boards.pi4(tmp_path),
        {"proc/meminfo": "MemTotal: 1000000 kB\nMemAvailable: 110000 kB\n"},
    )
    (complaint,) = preflight(tmp_path)
    assert "113 MB of 1024 MB" in complaint


def test_a_tenth_of_a_large_memory_must_be_available(tmp_path: Path) -> None:
    memory = boards.pi4(tmp_path) / "proc/meminfo"
    memory.write_text("MemTotal: 16000000 kB\nMemAvailable: 1590000 kB\n")
    assert len(preflight(tmp_path)) == 1
    memory.write_text("MemTotal: 16000000 kB\nMemAvailable: 1610000 kB\n")
    assert preflight(tmp_path) == ()
