"""A meter's file: what is read of it and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab_agent.energy.base import NoSensor
from trimtab_agent.energy.external import ExternalMeter, open_external
from trimtab_agent.energy.table import find_sensor
from trimtab_protocol.errors import StorageError


def meter(tmp_path: Path, before: str = "") -> tuple[ExternalMeter, Path]:
    path = tmp_path / "meter.csv"
    path.write_text(before)
    return ExternalMeter(path, lambda: 1_700_000_100.0, lambda: 100.0), path


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


def test_a_configured_meter_comes_before_all_other_sensors(tmp_path: Path) -> None:
    _, path = meter(tmp_path)
    assert isinstance(find_sensor(tmp_path, meter=path), ExternalMeter)
    assert isinstance(open_external(tmp_path / "missing"), NoSensor)
