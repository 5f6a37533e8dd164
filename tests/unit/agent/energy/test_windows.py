"""The arithmetic of energy per inference."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_agent.energy.base import SensorFacts
from trimtab_agent.energy.windows import Window, judge_windows

EXACT = SensorFacts("exact", "board", update_interval_s=0.001)


def at(middle_s: float, power_mw: float, inferences: int = 0) -> Window:
    return Window(10.0, power_mw * 10.0, inferences, middle_s)


@pytest.mark.parametrize(
    ("idle_mw", "load_mw"),
    [
        pytest.param((900, 1000, 1100), 1250, id="within the noise"),
        pytest.param((1000, 1000, 1000), 1000, id="a counter that stands still"),
        pytest.param((0, 0, 0), 0, id="a counter of zeros"),
        pytest.param((1000, 1001, 999), 900, id="less than idle"),
    ],
)
def test_what_cannot_be_told_from_idle_is_absent(
    idle_mw: tuple[float, ...], load_mw: float
) -> None:
    idle_windows = [at(5 + 20 * n, power_mw) for n, power_mw in enumerate(idle_mw)]
    loads = [at(15, load_mw, 100), at(35, load_mw, 100)]
    reading = judge_windows(idle_windows, loads, EXACT).per_inference_mj
    assert reading.value is None
    assert "below resolution" in str(reading.absent)


@given(
    floor=st.floats(10, 5000),
    dynamic=st.floats(100, 5000),
    inferences=st.integers(1, 10_000),
)
def test_on_a_steady_machine_the_added_energy_is_found(
    floor: float, dynamic: float, inferences: int
) -> None:
    loads = [at(15, floor + dynamic, inferences)]
    judged = judge_windows([at(5, floor), at(25, floor)], loads, EXACT)
    assert judged.per_inference_mj.value == pytest.approx(dynamic * 10.0 / inferences, rel=1e-6)


def test_a_drift_of_idle_power_is_interpolated_under_the_load() -> None:
    idle_windows = [at(5, 1000), at(25, 1200), at(45, 1400)]
    judged = judge_windows(idle_windows, [at(15, 3100, 100), at(35, 3300, 100)], EXACT)
    # Idle is 1100 and 1300 mW in the middle of the load: 2000 mW * 10 s / 100 both times.
    assert judged.per_inference_mj.value == pytest.approx(200.0)
    assert judged.per_inference_mj.interval is not None
    assert judged.per_inference_mj.interval.low == pytest.approx(200.0)
    assert judged.per_inference_mj.interval.confidence == 0.5
    assert judged.gross_mj.value == pytest.approx(320.0)
    assert judged.idle_power_mw.value == pytest.approx(1200.0)
    assert judged.load_power_mw.value == pytest.approx(3200.0)


def test_a_pure_drift_is_no_noise_where_windows_suffice_to_tell() -> None:
    idle_windows = [at(5 + 20 * n, 1000 + 200 * n) for n in range(4)]
    loads = [at(15 + 20 * n, 1300 + 200 * n, 10) for n in range(3)]  # 200 mW above idle
    assert judge_windows(idle_windows, loads, EXACT).per_inference_mj.value == pytest.approx(200.0)


def test_the_uncertainty_holds_step_gain_spread_and_idle() -> None:
    sensor = SensorFacts(
        "x",
        "module",
        resolution_mw=40,
        gain_ratio=0.01,
        offset_mw=80,
        update_interval_s=0.001,
        filter_s=0.5,
    )
    idle_windows = [at(5, 1000), at(25, 1000), at(45, 1000)]
    judged = judge_windows(idle_windows, [at(15, 2900, 100), at(35, 3100, 100)], sensor)
    # gain 0.01 * 200; step 40 / sqrt(12 * 10) * 0.1 s; spread stdev(190, 210) / sqrt(2) = 10.
    expected = math.sqrt(2.0**2 + (40 / math.sqrt(120) * 0.1) ** 2 + 10.0**2)
    assert judged.uncertainty_mj.value == pytest.approx(expected)
    # Gross: gain 0.01 * 300; the offset of 80 mW counts, 0.1 s each; idle does not.
    gross = math.sqrt(3.0**2 + (40 / math.sqrt(120) * 0.1) ** 2 + 10.0**2 + 8.0**2)
    assert judged.gross_uncertainty_mj.value == pytest.approx(gross)


def test_the_uncertainty_of_idle_power_counts_once_for_all_windows() -> None:
    noisy = [at(5 + 20 * n, power) for n, power in enumerate((1000, 1010, 990, 1000))]
    loads = [at(15 + 20 * n, 3000, 100) for n in range(3)]
    judged = judge_windows(noisy, loads, EXACT)
    # The line of least squares runs through 1003, 1001, 999, 997; the mean of four windows.
    noise_mw = math.sqrt((3**2 + 9**2 + 9**2 + 3**2) / 2) / math.sqrt(4)
    # Idle is 1005, 1000, 995 mW under the loads.
    spread_mw = statistics.stdev((1995, 2000, 2005)) / math.sqrt(3)
    expected = math.hypot(noise_mw, spread_mw) * 0.1
    assert judged.uncertainty_mj.value == pytest.approx(expected)


def test_a_power_within_the_sensor_s_steps_is_below_resolution_with_numbers() -> None:
    """[P-7.10]"""
    sensor = SensorFacts("x", "module", resolution_mw=1000, filter_s=5.0)
    judged = judge_windows([at(5, 1000), at(25, 1000)], [at(15, 1800, 100)], sensor)
    # One independent reading: 1000 / sqrt(12) = 288.7 mW, three times that is more than 800.
    assert "800.0 mW" in str(judged.per_inference_mj.absent)
    assert "288.7 mW" in str(judged.per_inference_mj.absent)
    assert judged.gross_mj.value == pytest.approx(180.0)
    assert judged.uncertainty_mj.absent == judged.per_inference_mj.absent
    assert judged.gross_uncertainty_mj.value == pytest.approx(28.87, abs=0.01)


def test_a_counter_s_step_at_either_edge_is_its_resolution() -> None:
    sensor = SensorFacts("count", "package", resolution_mj=10_000)
    judged = judge_windows([at(5, 1000), at(25, 1000)], [at(15, 1800, 100)], sensor)
    # 10 J / 10 s, even at either edge: sqrt(2 / 12).
    assert "uncertain by 408.2 mW" in str(judged.per_inference_mj.absent)


def test_an_idle_power_that_wavers_is_the_resolution() -> None:
    idle_windows = [at(5, 1000), at(25, 1400), at(45, 1000)]
    judged = judge_windows(idle_windows, [at(15, 1800, 9), at(35, 1800, 9)], EXACT)
    assert "uncertain by 230.9 mW" in str(judged.per_inference_mj.absent)


def test_a_window_below_idle_stays_negative() -> None:
    """[P-7.10]"""
    idle_windows = [at(5 + 20 * n, 1000 + n % 2) for n in range(4)]
    loads = [at(15, 900, 10), at(35, 3000, 10), at(55, 3000, 10)]
    interval = judge_windows(idle_windows, loads, EXACT).per_inference_mj.interval
    assert interval is not None
    assert interval.low == pytest.approx(-100.5)


def test_windows_that_do_not_alternate_or_infer_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="one more of idle"):
        judge_windows([at(5, 1000)], [at(15, 2000, 10)], EXACT)
    with pytest.raises(ValueError, match="no inference"):
        judge_windows([at(5, 1000), at(25, 1000)], [at(15, 2000, 0)], EXACT)
