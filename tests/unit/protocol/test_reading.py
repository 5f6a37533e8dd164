"""[P-7.1] A number is measured, or it is absent with a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from pydantic import ValidationError

from support.strategies import finite_floats, intervals, readings
from trimtab_protocol.reading import Interval, Reading, absent, known


@given(reading=readings())
def test_a_reading_is_known_or_says_why_not_and_never_both(reading: Reading) -> None:
    assert (reading.value is None) != (reading.absent is None)
    assert reading.value is not None or reading.interval is None


def test_a_reading_cannot_be_both_or_neither() -> None:
    with pytest.raises(ValidationError, match="either a value or a reason"):
        Reading()
    with pytest.raises(ValidationError, match="either a value or a reason"):
        Reading(value=1.0, absent="no sensor")


@given(interval=intervals())
def test_an_absent_reading_has_no_interval(interval: Interval) -> None:
    with pytest.raises(ValidationError, match="no interval"):
        Reading(absent="no sensor", interval=interval)


@given(value=finite_floats)
def test_a_known_reading_without_an_interval_is_its_own_bounds(value: float) -> None:
    reading = known(value)
    assert reading.known() == reading.low_or_value() == reading.high_or_value() == value


def test_a_known_reading_with_an_interval_gives_its_ends() -> None:
    reading = known(2.0, 1.0, 4.0)
    assert (reading.low_or_value(), reading.known(), reading.high_or_value()) == (1.0, 2.0, 4.0)
    assert reading.interval == Interval(low=1.0, high=4.0, confidence=0.95)


@pytest.mark.parametrize(("low", "high"), [(1.0, None), (None, 4.0)])
def test_half_an_interval_is_none(low: float | None, high: float | None) -> None:
    assert known(2.0, low, high).interval is None


def test_an_absent_reading_gives_its_reason_instead_of_a_number() -> None:
    reading = absent("no power sensor")
    for ask in (reading.known, reading.low_or_value, reading.high_or_value):
        with pytest.raises(ValueError, match="no power sensor"):
            ask()


def test_the_ends_of_an_interval_are_in_order() -> None:
    Interval(low=1.0, high=1.0)
    with pytest.raises(ValidationError, match="is above"):
        Interval(low=2.0, high=1.0)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, 95.0])
def test_a_confidence_lies_between_never_and_always(confidence: float) -> None:
    with pytest.raises(ValidationError):
        Interval(low=0.0, high=1.0, confidence=confidence)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_reading_is_a_finite_number(value: float) -> None:
    with pytest.raises(ValidationError):
        known(value)
    with pytest.raises(ValidationError):
        known(1.0, value, value)
