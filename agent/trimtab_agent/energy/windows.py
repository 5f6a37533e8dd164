"""Energy per inference from windows of load with idle windows around them: the arithmetic is pure.

    dynamic energy = energy of the load window - mean idle power * its duration

The spread of idle power is the resolution: a dynamic power that is not above three times that
spread is "below resolution", and no number is given; so a counter that stands still, as some
virtual machines have, gives no figure either. Negative values are never clamped.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab_protocol.reading import Reading, absent, known

RESOLUTION_SIGMAS = 3.0


@dataclass(frozen=True)
class Window:
    """One window: how long, how much energy, how many inferences were completed in it."""

    duration_s: float
    energy_mj: float
    inferences: int

    @property
    def power_mw(self) -> float:
        """Mean power."""
        return self.energy_mj / self.duration_s


def energy_per_inference(idle: Sequence[Window], load: Sequence[Window]) -> Reading:
    """Dynamic energy per inference in millijoules.

    Args:
        idle: At least two windows in which nothing was run, around the load.
        load: At least one window of back-to-back inferences.
    """
    idle_mw = [window.power_mw for window in idle]
    floor_mw = statistics.mean(idle_mw)
    noise_mw = statistics.stdev(idle_mw)
    dynamic_mw = [window.power_mw - floor_mw for window in load]
    if statistics.median(dynamic_mw) <= RESOLUTION_SIGMAS * noise_mw:
        return absent(
            f"below resolution: {statistics.median(dynamic_mw):.0f} mW over an idle power "
            f"that varies by {noise_mw:.0f} mW"
        )
    per_inference = [
        (window.energy_mj - floor_mw * window.duration_s) / window.inferences for window in load
    ]
    return known(statistics.median(per_inference), min(per_inference), max(per_inference))
