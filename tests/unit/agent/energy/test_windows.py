"""The arithmetic of energy per inference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_agent.energy.windows import Window, energy_per_inference


def idle(*power_mw: float) -> list[Window]:
    return [Window(2.0, power * 2.0, 0) for power in power_mw]


def load(*rows: tuple[float, int]) -> list[Window]:
    return [Window(5.0, power * 5.0, inferences) for power, inferences in rows]


def test_idle_power_is_taken_off() -> None:
    reading = energy_per_inference(idle(1000, 1010, 990), load((3000, 100), (3200, 100)))
    assert reading.value == pytest.approx((2000 * 5 / 100 + 2200 * 5 / 100) / 2)
    assert reading.interval is not None
    assert reading.interval.low == pytest.approx(100.0)
    assert reading.interval.high == pytest.approx(110.0)


@pytest.mark.parametrize(
    ("idle_mw", "load_mw"),
    [
        pytest.param((900, 1000, 1100), 1250, id="within the noise"),
        pytest.param((1000, 1000, 1000), 1000, id="a counter that stands still"),
        pytest.param((0, 0, 0), 0, id="a counter of zeros"),
        pytest.param((1000, 1001, 999), 900, id="less than idle"),
    ],
)
def test_what_cannot_be_told_from_idle_is_absent_with_both_figures(
    idle_mw: tuple[float, ...], load_mw: float
) -> None:
    reading = energy_per_inference(idle(*idle_mw), load((load_mw, 100), (load_mw, 100)))
    assert reading.value is None
    assert reading.absent is not None
    assert "below resolution" in reading.absent


def test_one_window_below_idle_is_not_clamped_to_zero() -> None:
    reading = energy_per_inference(idle(1000, 1001), load((900, 10), (3000, 10), (3000, 10)))
    assert reading.interval is not None
    assert reading.interval.low < 0


@given(
    floor=st.floats(10, 5000),
    dynamic=st.floats(100, 5000),
    inferences=st.integers(1, 10_000),
)
def test_on_a_steady_machine_the_added_energy_is_found(
    floor: float, dynamic: float, inferences: int
) -> None:
    reading = energy_per_inference(idle(floor, floor), load((floor + dynamic, inferences)))
    assert reading.value == pytest.approx(dynamic * 5.0 / inferences, rel=1e-6)
