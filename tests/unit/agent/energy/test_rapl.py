"""RAPL counters on made trees: what is added up, what is not, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab_agent.energy.base import NoSensor
from trimtab_agent.energy.rapl import Rapl, open_rapl
from trimtab_agent.energy.table import find_sensor
from trimtab_protocol.errors import StorageError

RANGE_UJ = 262_143_328_850


def add_zone(
    root: Path, zone: str, name: str, energy_uj: int = 0, range_uj: int = RANGE_UJ
) -> Path:
    folder = root / "sys" / "class" / "powercap" / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder


def count(folder: Path, energy_uj: int) -> None:
    (folder / "energy_uj").write_text(f"{energy_uj}\n")


def opened(root: Path) -> Rapl:
    sensor = open_rapl(root)
    assert isinstance(sensor, Rapl)
    return sensor


def test_packages_are_added_up_and_what_lies_in_or_around_them_is_not(tmp_path: Path) -> None:
    packages = [add_zone(tmp_path, f"intel-rapl:{n}", f"package-{n}", 1000) for n in (0, 1)]
    others = [
        add_zone(tmp_path, "intel-rapl:0:0", "core"),
        add_zone(tmp_path, "intel-rapl:0:1", "uncore"),
        add_zone(tmp_path, "intel-rapl:0:2", "dram"),
        add_zone(tmp_path, "intel-rapl:2", "psys"),
        add_zone(tmp_path, "intel-rapl-mmio:0", "package-0"),
    ]
    sensor = opened(tmp_path)
    assert sensor.read_mj() == 0
    count(packages[0], 1000 + 5_000)
    count(packages[1], 1000 + 7_000)
    for other in others:
        count(other, 1_000_000)
    assert sensor.read_mj() == pytest.approx(12.0)
    assert sensor.facts().name == "rapl:2 package(s)"
    assert sensor.facts().scope == "package"


def test_each_counter_wraps_at_its_own_range(tmp_path: Path) -> None:
    one = add_zone(tmp_path, "intel-rapl:0", "package-0", 990, range_uj=1_000)
    two = add_zone(tmp_path, "intel-rapl:1", "package-1", 99_000, range_uj=100_000)
    sensor = opened(tmp_path)
    count(one, 20)  # 30 microjoules later
    count(two, 1_000)  # 2,000 later
    assert sensor.read_mj() == pytest.approx(2.030)
    count(one, 10)  # round once more: 990
    assert sensor.read_mj() == pytest.approx(3.020)


def test_a_counter_that_vanishes_is_an_error_and_not_a_zero(tmp_path: Path) -> None:
    folder = add_zone(tmp_path, "intel-rapl:0", "package-0")
    sensor = opened(tmp_path)
    (folder / "energy_uj").unlink()
    with pytest.raises(StorageError, match="RAPL"):
        sensor.read_mj()


def test_a_counter_that_turns_to_junk_is_an_error(tmp_path: Path) -> None:
    folder = add_zone(tmp_path, "intel-rapl:0", "package-0")
    sensor = opened(tmp_path)
    (folder / "energy_uj").write_text("busy\n")
    with pytest.raises(StorageError):
        sensor.read_mj()


def reason(root: Path) -> str:
    sensor = open_rapl(root)
    assert isinstance(sensor, NoSensor)
    return sensor.reason


def test_without_powercap_the_reason_says_so(tmp_path: Path) -> None:
    assert "powercap is absent" in reason(tmp_path)
    found = find_sensor(tmp_path)
    assert isinstance(found, NoSensor)
    assert "powercap is absent" in found.reason


def test_zones_without_a_package_are_no_sensor(tmp_path: Path) -> None:
    add_zone(tmp_path, "intel-rapl:0", "psys")
    (tmp_path / "sys" / "class" / "powercap" / "intel-rapl:1").mkdir()
    assert "no package" in reason(tmp_path)


def test_a_name_that_is_not_text_is_no_package(tmp_path: Path) -> None:
    folder = add_zone(tmp_path, "intel-rapl:0", "package-0")
    (folder / "name").write_bytes(b"\xff\xfe")
    assert "no package" in reason(tmp_path)


@pytest.mark.parametrize("junk", ["", "many", "1.5"])
def test_a_counter_of_junk_is_no_sensor(tmp_path: Path, junk: str) -> None:
    folder = add_zone(tmp_path, "intel-rapl:0", "package-0")
    (folder / "energy_uj").write_text(junk)
    assert "cannot be read" in reason(tmp_path)


def test_a_counter_without_its_range_is_no_sensor(tmp_path: Path) -> None:
    folder = add_zone(tmp_path, "intel-rapl:0", "package-0")
    (folder / "max_energy_range_uj").unlink()
    assert "cannot be read" in reason(tmp_path)


def test_a_counter_for_root_only_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_text = Path.read_text

    def refuse(path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return read_text(path)

    add_zone(tmp_path, "intel-rapl:0", "package-0")
    monkeypatch.setattr(Path, "read_text", refuse)
    assert "root only" in reason(tmp_path)


def test_the_first_sensor_that_is_there_is_used(tmp_path: Path) -> None:
    add_zone(tmp_path, "intel-rapl:0", "package-0")
    assert isinstance(find_sensor(tmp_path), Rapl)
