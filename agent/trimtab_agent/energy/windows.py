"""Energy per inference from windows of load with idle windows around them: the arithmetic is pure.

    dynamic energy = energy of the load window - mean idle power * its duration

The idle power under a load window is interpolated between the idle windows before and after it, so
that a slow drift is taken off. The spread of idle power around its drift, with the sensor's own
steps, is the resolution: a dynamic power that is not above three times that is "below resolution",
and no number is given; so a counter that stands still, as some virtual machines have, gives no
figure either. Negative values are never clamped.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import hypot, sqrt

from trimtab_agent.energy.base import SHORTEST_INTERVAL_S, SensorFacts
from trimtab_protocol.reading import Interval, Reading, absent, known

RESOLUTION_SIGMAS = 3.0


@dataclass(frozen=True)
class Window:
    """One window: how long, how much energy, how many inferences were completed in it, and when.

    `middle_s` is needed where drift is taken off.
    """

    duration_s: float
    energy_mj: float
    inferences: float
    middle_s: float = 0.0

    @property
    def power_mw(self) -> float:
        """Mean power."""
        return self.energy_mj / self.duration_s


@dataclass(frozen=True)
class Judged:
    """What the windows say: per inference in millijoules, powers in milliwatts."""

    per_inference_mj: Reading
    uncertainty_mj: Reading
    gross_mj: Reading
    gross_uncertainty_mj: Reading
    idle_power_mw: Reading
    load_power_mw: Reading


def judge_windows(idle: Sequence[Window], load: Sequence[Window], sensor: SensorFacts) -> Judged:
    """Gross and dynamic energy per inference, with the sensor's own limits.

    Args:
        idle: One more than `load`; the model is loaded and not run.
        load: Back-to-back inferences, each window between two of `idle`.
        sensor: Its errors enter the uncertainty; a constant offset cancels in dynamic energy.

    Raises:
        ValueError: The windows do not alternate, or nothing was inferred in one.
    """
    if len(idle) != len(load) + 1 or not load:
        raise ValueError(f"{len(load)} load windows need one more of idle, not {len(idle)}")
    if any(window.inferences <= 0 for window in load):
        raise ValueError("no inference was completed in a load window")
    floors_mw = [
        _between_mw(before, after, window.middle_s)
        for before, window, after in zip(idle, load, idle[1:], strict=False)
    ]
    dynamic_mw = [
        window.power_mw - floor_mw for window, floor_mw in zip(load, floors_mw, strict=True)
    ]
    dynamic = [
        power_mw * window.duration_s / window.inferences
        for power_mw, window in zip(dynamic_mw, load, strict=True)
    ]
    gross = [window.energy_mj / window.inferences for window in load]
    per_mw = statistics.median(window.duration_s / window.inferences for window in load)
    noise_mw = _idle_noise_mw(idle)
    step_mw = max(_step_mw(window, sensor) for window in (*idle, *load))
    power_error_mw = sqrt(noise_mw**2 + step_mw**2)
    found_mw = statistics.median(dynamic_mw)
    gross_error_mj = _error_mj(gross, per_mw, sensor, step_mw, sensor.offset_mw)
    judged = Judged(
        per_inference_mj=_median(dynamic),
        uncertainty_mj=known(
            _error_mj(dynamic, per_mw, sensor, step_mw, noise_mw / sqrt(len(idle)))
        ),
        gross_mj=_median(gross),
        gross_uncertainty_mj=known(gross_error_mj),
        idle_power_mw=known(statistics.mean(window.power_mw for window in idle)),
        load_power_mw=known(statistics.median(window.power_mw for window in load)),
    )
    if found_mw <= RESOLUTION_SIGMAS * power_error_mw:
        reason = (
            f"below resolution: {found_mw:.1f} mW above idle, where idle power and the sensor are "
            f"uncertain by {power_error_mw:.1f} mW and three times that is asked for"
        )
        return replace(judged, per_inference_mj=absent(reason), uncertainty_mj=absent(reason))
    return judged


def _error_mj(
    values_mj: Sequence[float], per_mw: float, sensor: SensorFacts, *errors_mw: float
) -> float:
    """Standard uncertainty of a median energy: gain, spread between windows, and errors of power."""
    spread_mj = 0.0
    if len(values_mj) > 1:
        spread_mj = statistics.stdev(values_mj) / sqrt(len(values_mj))
    gain_mj = sensor.gain_ratio * statistics.median(values_mj)
    return hypot(gain_mj, spread_mj, *(error_mw * per_mw for error_mw in errors_mw))


def _between_mw(before: Window, after: Window, at_s: float) -> float:
    """Idle power at an instant between two idle windows, in a straight line."""
    span_s = after.middle_s - before.middle_s
    if span_s <= 0:
        return (before.power_mw + after.power_mw) / 2
    share = (at_s - before.middle_s) / span_s
    return before.power_mw + share * (after.power_mw - before.power_mw)


def _idle_noise_mw(idle: Sequence[Window]) -> float:
    """Spread of idle power around its straight-line drift; two windows cannot tell drift from it."""
    power_mw = [window.power_mw for window in idle]
    times_s = [window.middle_s for window in idle]
    if len(idle) < 4 or len(set(times_s)) < len(idle):
        return statistics.stdev(power_mw)
    slope, start_mw = statistics.linear_regression(times_s, power_mw)
    left_mw = [
        power - start_mw - slope * at_s for power, at_s in zip(power_mw, times_s, strict=True)
    ]
    return sqrt(sum(value**2 for value in left_mw) / (len(idle) - 2))


def _step_mw(window: Window, sensor: SensorFacts) -> float:
    """Error of a window's mean power from the sensor's steps: LSB / sqrt(12 independent readings).

    An averaging filter with time constant tau leaves duration / (2 tau) independent readings.
    """
    tau_s = max(sensor.filter_s, sensor.update_interval_s / 2, SHORTEST_INTERVAL_S / 2)
    readings = max(1.0, window.duration_s / (2 * tau_s))
    counter_mw = sensor.resolution_mj / window.duration_s / sqrt(6)  # a step at either edge
    return sqrt((sensor.resolution_mw / sqrt(12 * readings)) ** 2 + counter_mw**2)


def _median(values: Sequence[float]) -> Reading:
    """The median with the range of all windows.

    The range holds the true median with probability 1 - 2^(1-k) for k independent windows (each
    lies above it or below it with probability one half): 0.9375 for five.
    """
    middle = statistics.median(values)
    if len(values) < 2:
        return known(middle)
    confidence = 1 - 2.0 ** (1 - len(values))
    return Reading(
        value=middle, interval=Interval(low=min(values), high=max(values), confidence=confidence)
    )
