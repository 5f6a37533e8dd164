"""One measured value: known, perhaps with an interval, or absent with the reason.

The promise "measured, or absent with a reason" is this type: it cannot hold both or neither.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from trimtab_protocol.base import WireModel


class Interval(WireModel):
    """A confidence interval, ends included."""

    low: float
    high: float
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Reading(WireModel):
    """A value in the unit that its field name says, or the reason why there is none."""

    value: float | None = None
    interval: Interval | None = None
    absent: str | None = None

    @model_validator(mode="after")
    def _known_or_absent(self) -> Reading:
        if (self.value is None) == (self.absent is None):
            raise ValueError("a reading has either a value or a reason for its absence")
        if self.value is None and self.interval is not None:
            raise ValueError("an absent reading has no interval")
        return self

    def low_or_value(self) -> float:
        """Lower end of the interval, or the value where there is none. Only for known readings."""
        return self.interval.low if self.interval is not None else self.known()

    def high_or_value(self) -> float:
        """Upper end of the interval, or the value where there is none. Only for known readings."""
        return self.interval.high if self.interval is not None else self.known()

    def known(self) -> float:
        """The value.

        Raises:
            ValueError: The reading is absent. Look at `value` first.
        """
        if self.value is None:
            raise ValueError(f"absent: {self.absent}")
        return self.value


def known(value: float, low: float | None = None, high: float | None = None) -> Reading:
    """A known reading, with an interval if both ends are given."""
    interval = Interval(low=low, high=high) if low is not None and high is not None else None
    return Reading(value=value, interval=interval)


def absent(reason: str) -> Reading:
    """An absent reading with its reason."""
    return Reading(absent=reason)
