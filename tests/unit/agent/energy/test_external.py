"""A meter's file: what is read of it and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import power_layouts as boards
from trimtab_agent.energy.base import NoSensor
from trimtab_agent.energy.external import ExternalMeter
from trimtab_agent.energy.table import find_sensor
from trimtab_protocol.errors import StorageError
from trimtab_protocol.measurement import SensorKind


def meter(tmp_path: Path, before: str = "") -> tuple[ExternalMeter, Path]:
    path = tmp_path / "meter.csv"
    path.write_text(before)
    times_s = iter([100.0])
    return ExternalMeter(path, lambda: 1_700_000_100.0, lambda: next(times_s, 200.0)), path


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_new_lines_become_points_on_the_monotonic_clock(tmp_path: Path) -> None:
    sensor, path = meter(tmp_path, "1700000001,99\n")
    append(path, '1700000101.0,2\n{"t": 1700000103.0, "watts": 4}\n')
    points = sensor.read_points()
    assert [(p.at_s, p.energy_mj, p.power_mw) for p in points] == [
        (101, 0, 2000),
        (103, 6000, 4000),
    ]
    assert sensor.read_points() == ()


def test_monotonic_times_are_taken_as_they_are_and_a_heading_is_skipped(tmp_path: Path) -> None:
    sensor, path = meter(tmp_path)
    append(path, "time_s,watts\n101.5,2\n")
    assert [point.at_s for point in sensor.read_points()] == [101.5]


def test_a_line_that_is_still_being_written_is_read_next_time(tmp_path: Path) -> None:
    sensor, path = meter(tmp_path)
    append(path, "101,2\n102,1")
    assert len(sensor.read_points()) == 1
    append(path, "5\n")
    assert sensor.read_points()[0].power_mw == 15_000


@pytest.mark.parametrize("before", ["90,1\n10", "10", "x" * 5000 + "\n10"])
def test_half_a_line_at_the_beginning_is_not_taken_for_a_whole_one(
    tmp_path: Path, before: str
) -> None:
    sensor, path = meter(tmp_path, before)
    append(path, "1,2\n102,3\n")
    assert [point.at_s for point in sensor.read_points()] == [101, 102]


@pytest.mark.parametrize("line", ["102", "102,x", "102,nan", '{"t": 1}', "101,3", "100,3"])
def test_junk_and_times_that_do_not_grow_are_refused(tmp_path: Path, line: str) -> None:
    sensor, path = meter(tmp_path)
    append(path, f"101,2\n{line}\n")
    with pytest.raises(StorageError, match=r"meter\.csv"):
        sensor.read_points()


def test_a_file_that_was_cut_or_removed_is_an_error(tmp_path: Path) -> None:
    sensor, path = meter(tmp_path, "99,1\n")
    path.write_text("")
    with pytest.raises(StorageError, match="shorter"):
        sensor.read_points()
    path.unlink()
    with pytest.raises(StorageError):
        sensor.read_points()


def test_a_configured_meter_is_used_or_none(tmp_path: Path) -> None:
    _, path = meter(tmp_path)
    boards.orin_nano(tmp_path)
    assert isinstance(find_sensor(tmp_path, meter=path), ExternalMeter)
    found = find_sensor(tmp_path, meter=tmp_path / "missing")
    assert isinstance(found, NoSensor)
    assert "missing cannot be read: No such file" in found.reason


def test_a_file_that_was_renamed_is_read_to_its_end_before_the_new_one(tmp_path: Path) -> None:
    sensor, path = meter(tmp_path, "99,1\n")
    append(path, "101,2\n")
    assert len(sensor.read_points()) == 1
    append(path, "102,2\n")
    path.rename(tmp_path / "meter.csv.1")
    path.write_text("time,watts\n103,2\n")
    assert [point.at_s for point in sensor.read_points()] == [102, 103]
    append(path, "104,2\n")
    assert [(point.at_s, point.energy_mj) for point in sensor.read_points()] == [(104, 6000)]


def test_between_the_renaming_and_the_new_file_nothing_is_missed(tmp_path: Path) -> None:
    sensor, path = meter(tmp_path, "99,1\n")
    append(path, "101,2\n")
    path.rename(tmp_path / "meter.csv.1")
    assert [point.at_s for point in sensor.read_points()] == [101]
    assert sensor.read_points() == ()
    path.write_text("102,2\n")
    assert [point.at_s for point in sensor.read_points()] == [102]


def test_to_start_is_to_begin_with_the_file_that_is_there_now(tmp_path: Path) -> None:
    sensor, path = meter(tmp_path)
    append(path, "101,2\n")
    path.unlink()
    (tmp_path / "meter.csv.1").write_text("junk\n")
    path.write_text("junk\n102,2\n")
    sensor.start()
    append(path, "103,2\n104,2\n")
    assert [point.at_s for point in sensor.read_points()] == [103, 104]
    path.unlink()
    with pytest.raises(StorageError, match=r"meter\.csv"):
        sensor.start()


def test_a_file_that_was_replaced_by_another_is_an_error(tmp_path: Path) -> None:
    sensor, path = meter(tmp_path, "99,1\n")
    (tmp_path / "other").write_text("1,1\n2,2\n")
    (tmp_path / "meter.csv.1").write_text("99,1\n101,1\n")
    (tmp_path / "other").replace(path)
    with pytest.raises(StorageError, match="was replaced"):
        sensor.read_points()


@pytest.mark.parametrize("line", ["105,3", "1700000105.0,3"])
def test_a_meter_whose_clock_is_ahead_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("")
    sensor = ExternalMeter(path, lambda: 1_700_000_100.0, lambda: 100.0)
    append(path, line + "\n")
    with pytest.raises(StorageError, match=r"5\.0 s ahead of this device's clock"):
        sensor.read_points()


@pytest.mark.parametrize(
    ("text", "interval_s"),
    [
        ("", 1.0),
        ("time,watts\n", 1.0),
        ("10,1\n12,1\n14,1\n90,1\n", 2.0),
        ("90000,1\n5,1\n15,1\n25,1\n35,1", 10.0),  # the device was started again
        ("99,1\n50,1\n60,1\n10,1\n", 10.0),  # twice
        ("10,1\n10.01,1\n10.02,1\n", 0.1),
        ("x" * 3000 + "\n1,1\n4,1\n", 3.0),
    ],
)
def test_the_interval_is_taken_from_what_is_there(
    tmp_path: Path, text: str, interval_s: float
) -> None:
    sensor, _ = meter(tmp_path, text)
    assert sensor.facts().interval_s == pytest.approx(interval_s)
    assert (sensor.facts().scope, sensor.facts().kind) == ("board", SensorKind.EXTERNAL)


def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    sensor, path = meter(tmp_path)
    append(path, "1" * 5000)
    with pytest.raises(StorageError, match="longer than 4096"):
        sensor.read_points()
