"""Energy of a load, measured for real on sensors that are made."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from support import power_layouts as boards
from support.board_layouts import make_unreadable
from trimtab_agent.energy.base import EnergySensor, NoSensor, Point, SensorFacts, add_trapezoid_mj
from trimtab_agent.energy.external import ExternalMeter
from trimtab_agent.energy.measure import LoadRun, cut_window, measure_energy, plan_window_s
from trimtab_agent.energy.recording import Recording
from trimtab_agent.energy.sampled import Sampled
from trimtab_agent.energy.table import find_sensor
from trimtab_protocol.errors import ModelError
from trimtab_protocol.measurement import Energy, SensorKind

SECONDS = 0.4
QUICK = SensorFacts("made", "board", kind=SensorKind.SAMPLED, update_interval_s=0.001)


class MadeLoad:
    """Takes 3 W instead of 1 W while it runs, 100 inferences a second."""

    def __init__(self, while_running: Callable[[], None] = lambda: None) -> None:
        self.power_mw = 1000.0
        self.while_running = while_running
        self.seconds: list[float] = []

    def run_for(self, seconds: float) -> LoadRun:
        self.seconds.append(seconds)
        started_s, self.power_mw = time.monotonic(), 3000.0
        time.sleep(seconds / 2)
        self.while_running()
        time.sleep(seconds / 2)
        ended_s, self.power_mw = time.monotonic(), 1000.0
        return LoadRun(started_s, ended_s, round((ended_s - started_s) * 100))


def allowed(energy: Energy) -> float:
    """How far a window may be off, as a ratio: what the gaps at its edges and idle's leave open."""
    assert energy.max_gap_s is not None
    assert energy.window_s is not None
    return 0.02 + 2 * energy.max_gap_s / energy.window_s


def found(root: Path) -> EnergySensor:
    sensor = find_sensor(root)
    assert not isinstance(sensor, NoSensor)
    return sensor


def test_dynamic_and_gross_energy_of_a_load_are_found() -> None:
    load = MadeLoad()
    energy = measure_energy(Sampled(QUICK, lambda: load.power_mw), load, 2, 1.0)
    # 2 W over 100 inferences a second.
    assert energy.per_inference_mj.value == pytest.approx(20.0, rel=allowed(energy))
    assert energy.gross_mj is not None
    assert energy.gross_mj.value == pytest.approx(30.0, rel=allowed(energy))
    assert (energy.windows, energy.window_s, energy.kind) == (2, 1.0, SensorKind.SAMPLED)
    assert energy.coverage is not None
    assert energy.coverage.value == 1.0


def test_a_sensor_is_read_at_most_ten_times_a_second() -> None:
    count = 0

    def read_mw() -> float:
        nonlocal count
        count += 1
        return 1000.0

    began_s, edges = time.monotonic(), 4
    measure_energy(Sampled(QUICK, read_mw), MadeLoad(), 1, SECONDS)
    assert 5 < count <= (time.monotonic() - began_s) * 10 + edges


def test_a_counter_is_measured_by_the_same_windows() -> None:
    class Counter:
        """Counts as its load steps; the load says when."""

        def __init__(self) -> None:
            self.load, self.energy_mj, self.before_s = MadeLoad(), 0.0, time.monotonic()
            self.lock = threading.Lock()

        def facts(self) -> SensorFacts:
            return SensorFacts("count", "package", update_interval_s=0.001)

        def read_mj(self) -> float:
            with self.lock:
                now_s = time.monotonic()
                self.energy_mj += self.load.power_mw * (now_s - self.before_s)
                self.before_s = now_s
                return self.energy_mj

    counter = Counter()
    energy = measure_energy(counter, counter.load, 2, 1.0)
    assert energy.per_inference_mj.value == pytest.approx(20.0, rel=allowed(energy))
    assert energy.kind is SensorKind.COUNTER


@pytest.mark.parametrize(
    ("board", "file"),
    [
        (boards.nano_jetpack4, boards.IIO + "in_power0_input"),
        (boards.agx_orin, "sys/class/hwmon/hwmon3/curr2_input"),
        (boards.laptop_rapl, boards.RAPL + "intel-rapl:0/energy_uj"),
    ],
    ids=["iio", "ina3221", "rapl"],
)
def test_a_sensor_that_vanishes_in_mid_run_is_a_reason_and_no_exception(
    tmp_path: Path, board: Callable[[Path], Path], file: str
) -> None:
    sensor = found(board(tmp_path))
    load = MadeLoad(lambda: make_unreadable(tmp_path / file))
    energy = measure_energy(sensor, load, 3, SECONDS)
    assert energy.per_inference_mj.absent is not None
    assert "cannot be read any more" in energy.per_inference_mj.absent
    assert energy.source == sensor.facts().name
    assert len(load.seconds) == 1  # the other windows are not waited for


def test_a_sensor_that_answers_eagain_is_a_reason() -> None:
    count = 0

    def read_mw() -> float:
        nonlocal count
        count += 1
        if count > 6:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return 1000.0

    energy = measure_energy(Sampled(QUICK, read_mw), MadeLoad(), 1, SECONDS)
    assert "temporarily unavailable" in str(energy.per_inference_mj.absent)


def test_a_sensor_that_fails_before_the_load_does_not_start_it() -> None:
    count = itertools.count(1)

    def read_mw() -> float:
        if next(count) > 2:
            raise OSError(19, "No such device")
        return 1000.0

    load = MadeLoad()
    energy = measure_energy(Sampled(QUICK, read_mw), load, 1, SECONDS)
    assert "No such device" in str(energy.per_inference_mj.absent)
    assert load.seconds == []


def test_a_sensor_that_fails_in_the_last_idle_window_is_named() -> None:
    load, after = MadeLoad(), itertools.count(1)

    def read_mw() -> float:
        is_over = bool(load.seconds) and load.power_mw < 2000
        if is_over and next(after) > 2:
            raise OSError(19, "No such device")
        return load.power_mw

    energy = measure_energy(Sampled(QUICK, read_mw), load, 1, SECONDS)
    assert "No such device" in str(energy.per_inference_mj.absent)


def test_a_model_that_crashes_is_a_reason() -> None:
    def crash() -> None:
        raise ModelError("the worker was killed")

    energy = measure_energy(Sampled(QUICK, lambda: 1.0), MadeLoad(crash), 1, SECONDS)
    assert "the worker was killed" in str(energy.per_inference_mj.absent)


def test_a_power_that_does_not_move_is_below_resolution() -> None:
    energy = measure_energy(Sampled(QUICK, lambda: 1000.0), MadeLoad(), 1, SECONDS)
    assert "below resolution" in str(energy.per_inference_mj.absent)
    assert energy.gross_mj is not None
    assert energy.gross_mj.value == pytest.approx(10.0, rel=0.1)


class Impatient(ExternalMeter):
    """Ten lines a second are expected."""

    def facts(self) -> SensorFacts:
        return QUICK


def test_a_meter_that_is_silent_is_a_reason_before_the_load_is_started(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("")
    load = MadeLoad()
    energy = measure_energy(Impatient(path), load, 1, SECONDS)
    assert "do not cover anything: the sensor was silent" in str(energy.per_inference_mj.absent)
    assert load.seconds == []


def test_a_meter_that_falls_silent_in_mid_run_is_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("")

    class SpeaksOnce(Impatient):
        def start(self) -> None:
            super().start()
            path.write_text(f"{time.monotonic()},2\n")

    energy = measure_energy(SpeaksOnce(path), MadeLoad(), 1, SECONDS)
    assert re.search(r"samples \(\d.* do not cover", str(energy.per_inference_mj.absent))


def test_the_first_window_waits_for_the_first_word_of_a_meter(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("")
    looks = itertools.count(1)

    class SpeaksLate(Impatient):
        def read_points(self) -> tuple[Point, ...]:
            if next(looks) == 3:
                path.write_text(f"{time.monotonic()},2\n")
            return super().read_points()

    with Recording(SpeaksLate(path)) as recording:
        recording.wait_for_first()
        assert next(looks) > 3


def test_a_meter_whose_files_were_renamed_since_it_was_opened_is_read_from_now_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("")
    sensor = ExternalMeter(path)
    path.rename(tmp_path / "meter.csv.2")  # so twice while latencies were measured
    (tmp_path / "meter.csv.1").write_text("")
    path.write_text("")
    with Recording(sensor) as recording:
        path.write_text(f"{time.monotonic()},2\n")
        recording.mark()
        assert [point.power_mw for point in recording.points_until(0)] == [2000]


def test_a_sensor_that_stalled_is_a_reason_with_its_longest_gap() -> None:
    count = 0

    def read_mw() -> float:
        nonlocal count
        count += 1
        if count == 6:
            time.sleep(1.0)
        return 1000.0

    energy = measure_energy(Sampled(QUICK, read_mw), MadeLoad(), 1, 1.0)
    assert re.search(r"longest gap is [1-9]", str(energy.per_inference_mj.absent))


def test_a_filter_lengthens_the_window_and_its_settling_is_thrown_away() -> None:
    slow = SensorFacts("slow", "board", kind=SensorKind.SAMPLED, filter_s=0.02)
    assert plan_window_s(slow, 0.1) == pytest.approx(2.0)  # 20 update intervals of 0.1 s
    filtered = SensorFacts("slow", "board", update_interval_s=0.001, filter_s=0.02)
    assert plan_window_s(filtered, 0.1) == pytest.approx(0.4)
    load = MadeLoad()
    measure_energy(Sampled(filtered, lambda: load.power_mw), load, 1, 0.1)
    assert load.seconds == [pytest.approx(0.4 + 5 * 0.02)]


def test_what_a_sensor_still_shows_of_before_and_already_of_after_is_cut_off() -> None:
    slow = replace(QUICK, filter_s=0.1)  # settled after 0.5 s and an interval of 0.1 s
    points = [Point(0, 0, 1000)]
    for tenth, power_mw in enumerate([1000] * 5 + [3000] * 24 + [9000] * 5, 1):
        energy_mj = add_trapezoid_mj(points[-1], tenth / 10, power_mw)
        points.append(Point(tenth / 10, energy_mj, power_mw))
    window, coverage = cut_window(points, LoadRun(0.0, 3.0, 300), slow)
    assert window.power_mw == pytest.approx(3000)
    assert window.duration_s == pytest.approx(2.3)
    assert window.inferences == pytest.approx(230)
    assert window.middle_s == pytest.approx((0.6 + 2.9) / 2)
    assert coverage.share == 1
    with pytest.raises(ValueError, match=r"ended before the sensor had settled, which takes 0\.7"):
        cut_window(points, LoadRun(0.0, 0.7, 70), slow)


def test_power_loses_an_interval_at_either_end_of_a_run_and_a_counter_nothing() -> None:
    load = MadeLoad()
    energy = measure_energy(Sampled(QUICK, lambda: load.power_mw), load, 1, SECONDS)
    assert load.seconds == [pytest.approx(SECONDS + 2 * 0.1)]
    assert energy.window_s == SECONDS
    assert (SensorFacts("count", "package").settle_s, SensorFacts("count", "package").tail_s) == (
        0,
        0,
    )


@pytest.mark.parametrize("is_slow", [True, False])
def test_a_gauge_that_repeats_itself_has_not_measured(is_slow: bool) -> None:
    facts = replace(QUICK, is_slow=is_slow)
    energy = measure_energy(Sampled(facts, lambda: 1000.0), MadeLoad(), 1, SECONDS)
    assert ("samples cover only 0%" in str(energy.per_inference_mj.absent)) is is_slow


def test_a_gauge_that_moves_is_measured() -> None:
    load, readings = MadeLoad(), itertools.count()
    facts = replace(QUICK, is_slow=True)
    sensor = Sampled(facts, lambda: load.power_mw + next(readings) % 2)
    energy = measure_energy(sensor, load, 1, 1.0)
    assert energy.per_inference_mj.value == pytest.approx(20.0, rel=allowed(energy))


def test_no_window_at_all_is_a_reason() -> None:
    energy = measure_energy(Sampled(QUICK, lambda: 1.0), MadeLoad(), 0, SECONDS)
    assert "at least 1" in str(energy.per_inference_mj.absent)
