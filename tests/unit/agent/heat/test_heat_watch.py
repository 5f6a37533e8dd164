"""What a watch over a run finds, on trees as boards have them."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support import board_layouts as boards
from trimtab_agent.heat import HeatWatch
from trimtab_agent.heat import watch as heat_watch
from trimtab_protocol.measurement import Heat

BOARDS = [
    boards.pi5,
    boards.pi4,
    boards.orin_nano,
    boards.agx_orin,
    boards.nano_jetpack4,
    boards.laptop,
    boards.nothing,
]
SLOW_S = 60.0
FAST_S = 0.005


def watched(
    root: Path,
    during: Callable[[], object],
    answers: list[str] | None = None,
    cpus: tuple[int, ...] = (),
) -> Heat:
    """One run with two looks, at its start and its end."""
    ask = (lambda _command: answers.pop(0)) if answers is not None else None
    watch = HeatWatch(root, cpus, ask, period_s=SLOW_S)
    watch.start()
    during()
    return watch.stop()


def wait_for(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.002)


def idle() -> None:
    return


@pytest.mark.parametrize("board", BOARDS)
def test_a_quiet_run_has_no_throttling_and_leaves_no_thread(
    tmp_path: Path, board: Callable[[Path], Path]
) -> None:
    watch = HeatWatch(board(tmp_path), period_s=FAST_S)
    watch.start()
    heat = watch.stop()
    assert heat.throttling == ()
    assert not watch._thread.is_alive()
    assert Heat.model_validate_json(heat.model_dump_json()) == heat


def test_where_there_is_nothing_to_watch_it_says_so(tmp_path: Path) -> None:
    heat = watched(boards.nothing(tmp_path), idle)
    assert heat.zones == ()
    assert heat.highest_clock_share.value is None
    assert len(heat.absent) == 2


def test_a_zone_that_is_off_is_absent_and_the_others_are_read(tmp_path: Path) -> None:
    heat = watched(boards.orin_nano(tmp_path), idle)
    found = {zone.name: zone.highest.value for zone in heat.zones}
    assert found == {
        "cpu-thermal": 63.625,
        "gpu-thermal": 62.5,
        "cv0-thermal": None,
        "tj-thermal": 63.781,
    }


def test_a_zone_that_answers_eagain_is_tolerated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boards.pi5(tmp_path)
    real = Path.read_text

    def busy(path: Path, *args: object, **more: object) -> str:
        if path.name == "temp":
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        return real(path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", busy)
    (zone,) = watched(tmp_path, idle).zones
    assert all(row.absent for row in (zone.before, zone.highest, zone.after))


def test_the_highest_temperature_between_two_looks_is_kept(tmp_path: Path) -> None:
    temperature = boards.pi5(tmp_path) / "sys/class/thermal/thermal_zone0/temp"
    watch = HeatWatch(tmp_path, period_s=FAST_S)
    watch.start()
    temperature.write_text("81500 mC\n")
    wait_for(lambda: watch._zones[0].summarise().highest.value == 81.5)
    temperature.write_text("60000\n")
    (zone,) = watch.stop().zones
    assert (zone.before.value, zone.highest.value, zone.after.value) == (46.85, 81.5, 60.0)


def test_a_sensor_that_vanishes_in_mid_run_keeps_what_it_said(tmp_path: Path) -> None:
    folder = boards.pi5(tmp_path) / "sys/class/thermal/thermal_zone0"
    heat = watched(tmp_path, (folder / "temp").unlink)
    (zone,) = heat.zones
    assert (zone.before.value, zone.highest.value) == (46.85, 46.85)
    assert zone.after.absent is not None


def test_a_source_that_vanishes_in_mid_run_is_named(tmp_path: Path) -> None:
    alarm = boards.pi5(tmp_path) / "sys/class/hwmon/hwmon3/in0_lcrit_alarm"
    assert watched(tmp_path, alarm.unlink).absent == (
        "rpi_volt in0_lcrit_alarm cannot be read any more",
    )


def test_the_constant_of_the_nanos_pmic_is_no_temperature(tmp_path: Path) -> None:
    heat = watched(boards.nano_jetpack4(tmp_path), idle)
    assert [zone.name for zone in heat.zones] == ["AO-therm", "CPU-therm"]


def test_zones_of_one_type_are_told_apart(tmp_path: Path) -> None:
    heat = watched(boards.laptop(tmp_path), idle)
    assert [zone.name for zone in heat.zones] == [
        "acpitz/thermal_zone0",
        "x86_pkg_temp",
        "acpitz/thermal_zone2",
        "iwlwifi_1",
    ]


def test_a_live_bit_of_the_firmware_counts_in_seconds_and_voids(tmp_path: Path) -> None:
    heat = watched(
        boards.pi4(tmp_path), lambda: time.sleep(0.05), ["throttled=0x0", "throttled=0x50005"]
    )
    assert {event.what for event in heat.throttling} == {
        "under-voltage",
        "throttled by the firmware",
    }
    assert all(event.is_voiding and 0.05 <= event.count < 5 for event in heat.throttling)


def test_an_old_sticky_bit_is_not_this_runs(tmp_path: Path) -> None:
    heat = watched(boards.pi4(tmp_path), idle, ["throttled=0x50000", "throttled=0x50000"])
    assert heat.throttling == ()


def test_a_sticky_bit_that_came_up_between_two_looks_voids(tmp_path: Path) -> None:
    heat = watched(boards.pi4(tmp_path), idle, ["throttled=0x40000", "throttled=0x60000"])
    (event,) = heat.throttling
    assert (event.what, event.count) == ("clock capped by the firmware, briefly", 1)
    assert event.is_voiding


@pytest.mark.parametrize(
    "answer",
    [
        "VCHI initialization failed",
        "Can't open device file: /dev/vcio",
        "",
        "throttled=zebra",
        "throttled=0x5?",
    ],
)
def test_a_firmware_that_does_not_answer_is_absent_with_its_words(
    tmp_path: Path, answer: str
) -> None:
    heat = watched(boards.pi4(tmp_path), idle, [answer, answer])
    assert heat.throttling == ()
    assert any(answer[:20] in reason and "get_throttled" in reason for reason in heat.absent)


def test_a_firmware_that_raises_does_not_end_the_run(tmp_path: Path) -> None:
    def ask(_command: str) -> str:
        raise PermissionError("/dev/vcio")

    watch = HeatWatch(boards.pi4(tmp_path), (), ask, period_s=FAST_S)
    watch.start()
    assert any("/dev/vcio" in reason for reason in watch.stop().absent)


def test_the_kernels_under_voltage_alarm_voids(tmp_path: Path) -> None:
    alarm = boards.pi5(tmp_path) / "sys/class/hwmon/hwmon3/in0_lcrit_alarm"
    (event,) = watched(tmp_path, lambda: alarm.write_text("1\n")).throttling
    assert (event.source, event.what) == ("rpi_volt in0_lcrit_alarm", "under-voltage")


@pytest.mark.parametrize(("alarm", "is_voiding"), [(1, True), (2, True), (3, False)])
def test_a_jetsons_over_current_alarms_are_told_apart(
    tmp_path: Path, alarm: int, is_voiding: bool
) -> None:
    counter = boards.orin_nano(tmp_path) / f"sys/class/hwmon/hwmon3/oc{alarm}_event_cnt"
    (event,) = watched(tmp_path, lambda: counter.write_text("12\n")).throttling
    assert event.is_voiding is is_voiding
    assert event.count == 12 - [1, 0, 2][alarm - 1]
    assert ("per second" in event.what) is not is_voiding


def test_a_cooler_that_lowers_the_clock_voids_and_a_fan_does_not(tmp_path: Path) -> None:
    state = boards.orin_nano(tmp_path) / "sys/class/thermal/cooling_device1/cur_state"
    (event,) = watched(tmp_path, lambda: state.write_text("3\n")).throttling
    assert event.source == "cooling_device1 thermal-cpufreq-0"


def test_a_packages_counter_is_counted_once_and_a_cores_on_each_core(tmp_path: Path) -> None:
    boards.laptop(tmp_path)

    def heat_up() -> None:
        for number in range(4):
            folder = tmp_path / boards.CPU.format(number=number) / "thermal_throttle"
            (folder / "core_throttle_count").write_text(f"{number + 2}\n")
            (folder / "package_throttle_count").write_text("10\n")

    counts = [event.count for event in watched(tmp_path, heat_up, cpus=(0, 1)).throttling]
    assert counts == [4, 3]


def test_time_at_each_clock_is_of_the_used_cpus_and_of_this_run(tmp_path: Path) -> None:
    boards.pi5(tmp_path)

    def run() -> None:
        boards.spend(tmp_path, 1, 2400000, 30)
        boards.spend(tmp_path, 1, 1500000, 10)
        boards.spend(tmp_path, 0, 1800000, 500)

    heat = watched(tmp_path, run, cpus=(1,))
    assert heat.clock_residency == {"1500000": 0.25, "2400000": 0.75}
    assert heat.highest_clock_share.value == 0.75


def test_the_highest_clock_is_the_one_that_the_power_mode_allows(tmp_path: Path) -> None:
    boards.orin_nano(tmp_path)
    heat = watched(tmp_path, lambda: boards.spend(tmp_path, 0, 1510400, 10), cpus=(0,))
    assert heat.highest_clock_share.value == 1.0


def test_clock_sums_that_were_reset_are_absent(tmp_path: Path) -> None:
    boards.pi5(tmp_path)
    heat = watched(tmp_path, lambda: boards.spend(tmp_path, 0, 1500000, -5))
    assert "reset" in (heat.highest_clock_share.absent or "")


def test_a_cpu_that_goes_offline_in_mid_run_is_named(tmp_path: Path) -> None:
    stats = boards.pi5(tmp_path) / boards.CPU.format(number=2) / "cpufreq/stats/time_in_state"
    heat = watched(tmp_path, stats.unlink)
    assert "CPU 2" in (heat.highest_clock_share.absent or "")


def test_a_sensor_that_hangs_does_not_hold_up_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heat_watch, "STOP_TIMEOUT_S", 0.05)
    asked, released = threading.Event(), threading.Event()
    looks: list[str] = []

    def ask(command: str) -> str:
        looks.append(command)
        if len(looks) > 1:
            asked.set()
            released.wait(10)
        return "throttled=0x0"

    watch = HeatWatch(boards.pi4(tmp_path), (), ask, period_s=FAST_S)
    watch.start()
    try:
        assert asked.wait(5)
        heat = watch.stop()
    finally:
        released.set()
        watch._thread.join(5)
    assert any("hangs" in reason for reason in heat.absent)
    assert not watch._thread.is_alive()


def test_this_very_machine_can_be_watched() -> None:
    watch = HeatWatch()
    watch.start()
    watch.stop()
