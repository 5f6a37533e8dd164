"""Power sensors on made trees: what is read, what is skipped, and what is said without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import power_layouts as boards
from support.board_layouts import make_unreadable
from trimtab_agent.energy.base import EnergySensor, NoSensor, SensorFacts, read_number
from trimtab_agent.energy.battery import open_battery
from trimtab_agent.energy.ina2xx import open_ina2xx
from trimtab_agent.energy.ina3221 import is_connected, open_ina3221, open_ina3221_iio
from trimtab_agent.energy.pmic import open_pmic, parse_rails_mw
from trimtab_agent.energy.rapl import open_rapl
from trimtab_agent.energy.sampled import Sampled
from trimtab_agent.energy.table import find_sensor
from trimtab_agent.pi_firmware import ask_firmware
from trimtab_protocol.errors import StorageError
from trimtab_protocol.measurement import SensorKind


def sampled(found: EnergySensor | NoSensor) -> Sampled:
    assert isinstance(found, Sampled), found
    return found


def power_mw(found: EnergySensor | NoSensor) -> float:
    (point,) = sampled(found).read_points()
    assert point.power_mw is not None
    return point.power_mw


def reason(found: EnergySensor | NoSensor) -> str:
    assert isinstance(found, NoSensor)
    return found.reason


def test_orin_nano_reads_the_module_input_and_nothing_within_it(tmp_path: Path) -> None:
    found = find_sensor(boards.orin_nano(tmp_path))
    assert power_mw(found) == pytest.approx(4984 * 1856 / 1000)
    facts = sampled(found).facts()
    assert (facts.name, facts.scope, facts.kind) == (
        "ina3221:VDD_IN",
        "module",
        SensorKind.SAMPLED,
    )
    assert facts.filter_s == pytest.approx(0.43)
    assert facts.resolution_mw == pytest.approx(4984 * 40 / 5000)
    assert facts.offset_mw == pytest.approx(4984 * 80 / 5000)


def test_agx_orin_adds_the_rails_of_both_chips_without_unconnected_ones(tmp_path: Path) -> None:
    found = find_sensor(boards.agx_orin(tmp_path))
    assert power_mw(found) == pytest.approx(14_000)
    assert sampled(found).facts().scope == "rails"
    assert sampled(found).facts().filter_s == 0


def test_a_channel_that_is_switched_off_is_skipped(tmp_path: Path) -> None:
    chip = boards.agx_orin(tmp_path) / "sys/class/hwmon/hwmon2"
    (chip / "in1_enable").write_text("0\n")
    assert power_mw(open_ina3221(tmp_path)) == pytest.approx(9_000)


def test_without_an_update_interval_the_filter_follows_from_the_samples(tmp_path: Path) -> None:
    chip = boards.orin_nano(tmp_path) / "sys/class/hwmon/hwmon1"
    (chip / "update_interval").unlink()
    facts = sampled(open_ina3221(tmp_path)).facts()
    assert facts.filter_s == pytest.approx(3 * 512 * 2.2 / 1000)


def test_of_two_chips_the_slower_filter_counts(tmp_path: Path) -> None:
    chips = boards.agx_orin(tmp_path) / "sys/class/hwmon"
    for number, milliseconds in ((2, 430), (3, 100)):
        (chips / f"hwmon{number}/samples").write_text("512\n")
        (chips / f"hwmon{number}/update_interval").write_text(f"{milliseconds}\n")
    assert sampled(open_ina3221(tmp_path)).facts().filter_s == pytest.approx(0.43)


@pytest.mark.parametrize("text", ["", "busy\n"])
def test_a_setting_that_is_no_number_counts_as_missing(tmp_path: Path, text: str) -> None:
    chip = boards.orin_nano(tmp_path) / "sys/class/hwmon/hwmon1"
    (chip / "samples").write_text(text)
    (chip / "shunt1_resistor").write_text(text)
    facts = sampled(open_ina3221(tmp_path)).facts()
    assert facts.filter_s == 0
    assert facts.resolution_mw == pytest.approx(4984 * 40 / 5000)


def test_a_chip_with_no_connected_channel_is_no_sensor(tmp_path: Path) -> None:
    chip = boards.orin_nano(tmp_path) / "sys/class/hwmon/hwmon1"
    for number in (1, 2, 3):
        (chip / f"in{number}_label").write_text("NC\n")
    assert "none of its channels" in reason(open_ina3221(tmp_path))


@pytest.mark.parametrize(
    ("label", "is_rail"),
    [("VDD_IN", True), ("VDDQ_VDD2_1V8AO", True), ("SYNC", True), ("NC", False), ("NC_2", False)],
)
def test_only_the_word_nc_marks_an_unused_channel(label: str, is_rail: bool) -> None:
    assert is_connected(label) is is_rail


def test_nano_with_jetpack_4_reads_the_whole_input_with_a_unit_behind_it(tmp_path: Path) -> None:
    found = find_sensor(boards.nano_jetpack4(tmp_path))
    assert power_mw(found) == 2875
    assert sampled(found).facts().name == "ina3221x:POM_5V_IN"


def test_jetpack_4_without_a_power_file_multiplies(tmp_path: Path) -> None:
    device = boards.nano_jetpack4(tmp_path) / boards.IIO
    (device / "in_power0_input").unlink()
    assert power_mw(open_ina3221_iio(tmp_path)) == pytest.approx(5000 * 575 / 1000)


@pytest.mark.parametrize(
    ("text", "number"), [("32760 ma", 32760), ("-12\n", -12), ("1.5 W", 1.5), ("7", 7)]
)
def test_a_unit_behind_a_number_is_dropped(tmp_path: Path, text: str, number: float) -> None:
    (tmp_path / "value").write_text(text)
    assert read_number(tmp_path / "value") == number


@pytest.mark.parametrize("text", ["", "busy", "ma 5", "5 5"])
def test_what_is_no_number_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "value").write_text(text)
    with pytest.raises(ValueError, match="value"):
        read_number(tmp_path / "value")


def test_pi_5_pairs_rails_by_name_and_asks_by_the_mailbox(tmp_path: Path) -> None:
    found = open_pmic(boards.pi5(tmp_path), boards.firmware(boards.PMIC_ANSWER))
    assert power_mw(found) == pytest.approx(boards.PMIC_SUM_MW, abs=0.1)
    rails = parse_rails_mw(boards.PMIC_ANSWER)
    assert len(rails) == 12
    assert rails["VDD_CORE"] == pytest.approx(10.87674 * 0.8974594 * 1000)


def fake_vcgencmd(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    folder.mkdir()
    (folder / "answer").write_text(boards.PMIC_ANSWER)
    program = folder / "vcgencmd"
    program.write_text("#!/bin/sh\n" + script.replace("ANSWER", str(folder / "answer")))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_pi_5_without_a_mailbox_falls_back_to_vcgencmd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vcgencmd(tmp_path / "bin", monkeypatch, '[ "$1" = pmic_read_adc ] && cat ANSWER\n')
    (boards.pi5(tmp_path) / "dev/vcio").unlink()
    assert power_mw(find_sensor(tmp_path)) == pytest.approx(boards.PMIC_SUM_MW, abs=0.1)


def test_a_firmware_that_answers_nowhere_gives_both_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "VCHI initialization failed"
    fake_vcgencmd(tmp_path / "bin", monkeypatch, f"echo '{text}' >&2\nexit 255\n")
    with pytest.raises(StorageError) as caught:
        ask_firmware("pmic_read_adc", boards.pi5(tmp_path), boards.firmware("", status=5))
    assert "status 5" in caught.value.message
    assert text in caught.value.message
    assert "group video" in caught.value.message


def test_a_pi_whose_mailbox_may_not_be_opened_is_read_once_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_vcgencmd(tmp_path / "bin", monkeypatch, "cat ANSWER\n")
    ioctl = boards.firmware(boards.PMIC_ANSWER)
    assert sampled(open_pmic(boards.pi5(tmp_path), ioctl)).facts().interval_s == 0.1
    (tmp_path / "dev/vcio").unlink()
    assert sampled(open_pmic(tmp_path, ioctl)).facts().interval_s == 1.0


def test_other_boards_are_not_asked_for_a_pmic(tmp_path: Path) -> None:
    boards.pi4_ina219(tmp_path)
    found = open_pmic(tmp_path, boards.firmware(boards.PMIC_ANSWER))
    assert "not a Raspberry Pi 5" in reason(found)


def test_a_pmic_that_loses_a_rail_fails_instead_of_adding_up_less(tmp_path: Path) -> None:
    lines = boards.PMIC_ANSWER.splitlines(keepends=True)
    answers = iter([boards.PMIC_ANSWER, "".join(line for line in lines if "VDD_CORE" not in line)])

    def ioctl(handle: int, request: int, buffer: bytearray) -> object:
        return boards.firmware(next(answers))(handle, request, buffer)

    sensor = sampled(open_pmic(boards.pi5(tmp_path), ioctl))
    with pytest.raises(StorageError, match="rails changed"):
        sensor.read_points()


def test_pi_4_with_an_ina219_reads_microwatts_of_the_board(tmp_path: Path) -> None:
    found = find_sensor(boards.pi4_ina219(tmp_path))
    assert power_mw(found) == pytest.approx(3100)
    facts = sampled(found).facts()
    assert (facts.scope, facts.source) == ("board", "ina2xx:ina219")
    assert facts.resolution_mw == pytest.approx(5000 * 10 / 100_000)


def test_the_driver_s_default_shunt_is_pointed_out(tmp_path: Path) -> None:
    facts = sampled(open_ina2xx(boards.pi4_ina219(tmp_path, shunt_uohm=10_000))).facts()
    assert "10 mOhm" in facts.source


def test_an_ina260_has_its_shunt_inside(tmp_path: Path) -> None:
    chip = boards.pi4_ina219(tmp_path, shunt_uohm=10_000) / "sys/class/hwmon/hwmon2"
    (chip / "name").write_text("ina260\n")
    facts = sampled(open_ina2xx(tmp_path)).facts()
    assert facts.source == "ina2xx:ina260"  # without a warning of the driver's default
    assert facts.resolution_mw == pytest.approx(5000 * 2.5 / 2000)


def test_a_monitor_that_averages_is_read_as_often_as_it_has_something_new(tmp_path: Path) -> None:
    chip = boards.pi4_ina219(tmp_path) / "sys/class/hwmon/hwmon2"
    assert sampled(open_ina2xx(tmp_path)).facts().update_interval_s == pytest.approx(0.0681)
    (chip / "update_interval").write_text("2253\n")
    assert sampled(open_ina2xx(tmp_path)).facts().interval_s == pytest.approx(2.253)


def test_laptop_rapl_counts_the_package_once_and_wraps(tmp_path: Path) -> None:
    sensor = open_rapl(boards.laptop_rapl(tmp_path, energy_uj=990_000, range_uj=1_000_000))
    assert not isinstance(sensor, NoSensor)
    for zone in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:0:1", "intel-rapl:1"):
        (tmp_path / boards.RAPL / zone / "energy_uj").write_text("15000\n")
    assert sensor.read_mj() == pytest.approx(25.0)


def test_a_discharging_battery_is_read_whatever_its_sign(tmp_path: Path) -> None:
    found = find_sensor(boards.laptop_battery(tmp_path))
    assert power_mw(found) == pytest.approx(18_000)
    facts = sampled(found).facts()
    assert (facts.name, facts.scope, facts.is_slow) == ("battery:BAT0", "board", True)
    (tmp_path / boards.SUPPLY / "BAT0/power_now").write_text("-7500000\n")
    assert power_mw(find_sensor(tmp_path)) == pytest.approx(7_500)


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
def test_a_battery_that_does_not_feed_the_device_is_no_sensor(tmp_path: Path, status: str) -> None:
    found = open_battery(boards.laptop_battery(tmp_path, status))
    assert f"BAT0 {status}" in reason(found)
    assert "hidpp" not in reason(found)


def test_a_supply_that_is_plugged_in_while_reading_ends_it(tmp_path: Path) -> None:
    sensor = sampled(open_battery(boards.laptop_battery(tmp_path)))
    (tmp_path / boards.SUPPLY / "BAT0/status").write_text("Charging\n")
    with pytest.raises(StorageError, match="not discharging any more"):
        sensor.read_points()


def test_a_machine_with_nothing_says_why_for_every_sensor(tmp_path: Path) -> None:
    text = reason(find_sensor(tmp_path))
    for word in ("meter outside", "INA3221", "JetPack 4", "PMIC", "INA219", "powercap", "battery"):
        assert word in text


@pytest.mark.parametrize(
    ("board", "file"),
    [
        (boards.orin_nano, "sys/class/hwmon/hwmon1/curr1_input"),
        (boards.nano_jetpack4, boards.IIO + "in_power0_input"),
        (boards.pi4_ina219, "sys/class/hwmon/hwmon2/power1_input"),
        (boards.laptop_battery, boards.SUPPLY + "BAT0/current_now"),
    ],
    ids=["ina3221", "iio", "ina2xx", "battery"],
)
def test_a_file_that_cannot_be_read_is_a_reason_before_and_an_error_after(
    tmp_path: Path, board: object, file: str
) -> None:
    assert callable(board)
    sensor = sampled(find_sensor(board(tmp_path)))
    make_unreadable(tmp_path / file)
    with pytest.raises(StorageError, match="cannot be read any more"):
        sensor.read_points()
    assert "cannot be read" in reason(find_sensor(tmp_path))


def test_energy_is_the_trapezoid_of_power_also_between_two_calls() -> None:
    readings = iter([1000.0, 3000.0, 2000.0, 2000.0])
    times = iter([0.0, 2.0, 3.0, 99.0])
    sensor = Sampled(SensorFacts("x", "board"), lambda: next(readings), lambda: next(times))
    energies = [sensor.read_points()[0].energy_mj for _ in range(3)]
    assert energies == [0.0, 4000.0, 6500.0]
    sensor.start()
    assert sensor.read_points()[0].energy_mj == 0.0
