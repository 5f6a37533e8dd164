"""What to do next on the ladder. Pure: observations in, the next action out.

Rules:
    1. The first setting that loses no more than is allowed ends the climb.
    2. A rung starts from the best setting of the rungs before it, so what helped is kept and what
       hurt is dropped. Of equals the earlier one, which does less.
    3. A setting that cannot be carried out is an observation too, with its reason, and no best.
    4. Layers are ranked once, when a rung asks for it, for the best setting of that moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from trimtab_compressor.rescue.rungs import RUNGS, Rung, Setting

ROUNDING = 1e-9
"""Of differences between ratios."""


@dataclass(frozen=True)
class Measured:
    """What a setting gave.

    Args:
        accuracy: Exact, on the file's runtime; 0 to 1.
        on_host: By the default kernels of this CPU.
        cosine: Mean cosine of the outputs with the float model's; the worst output's.
        size_bytes: Of the file.
        seconds: That its passes took when they were first computed, without those that earlier
            settings had done.
    """

    accuracy: float
    on_host: float | None
    cosine: float
    size_bytes: int
    seconds: float


@dataclass(frozen=True)
class Observation:
    """One setting that was tried.

    Args:
        rung: Its name.
        setting: What was tried.
        measured: What it gave; None if it could not be carried out.
        reason: Why it could not.
    """

    rung: str
    setting: Setting
    measured: Measured | None
    reason: str = ""


@dataclass(frozen=True)
class Goal:
    """How much may be lost.

    Args:
        reference: Accuracy of the float file on its runtime; 0 to 1.
        max_drop_points: In percentage points.
    """

    reference: float
    max_drop_points: float

    def drop_points(self, accuracy: float) -> float:
        """What is lost, in points; negative for a gain."""
        return (self.reference - accuracy) * 100

    def is_met(self, accuracy: float) -> bool:
        """Whether no more is lost than is allowed."""
        return self.drop_points(accuracy) <= self.max_drop_points + ROUNDING


@dataclass(frozen=True)
class Try:
    """Carry out a setting and measure it."""

    rung: str
    setting: Setting


@dataclass(frozen=True)
class Rank:
    """Rank the layers of a setting by sensitivity, because this rung asks for it."""

    rung: str
    setting: Setting


@dataclass(frozen=True)
class Stop:
    """The climb is over.

    Args:
        best: The observation that is enough; else the best one; None if nothing could be done.
        is_enough: Whether it loses no more than is allowed.
    """

    best: Observation | None
    is_enough: bool


Action: TypeAlias = Try | Rank | Stop


def decide_next(
    seen: Sequence[Observation],
    goal: Goal,
    start: Setting,
    ranking: Sequence[str] | None = None,
    rungs: Sequence[Rung] = RUNGS,
) -> Action:
    """The next action.

    Args:
        seen: All observations so far, in order.
        goal: How much may be lost.
        start: What the first rung tries.
        ranking: Layers from the most sensitive on; None if nobody asked yet.
        rungs: The ladder.
    """
    best = choose_best(seen)
    if best is not None and best.measured is not None and goal.is_met(best.measured.accuracy):
        return Stop(best, is_enough=True)
    done = {(row.rung, row.setting) for row in seen}
    below: list[str] = []
    for rung in rungs:
        standing = choose_best([row for row in seen if row.rung in below])
        setting = start if standing is None else standing.setting
        if rung.needs_ranking and ranking is None:
            return Rank(rung.name, setting)
        for variant in rung.variants(setting, ranking or ()):
            if (rung.name, variant) not in done:
                return Try(rung.name, variant)
        below.append(rung.name)
    return Stop(best, is_enough=False)


def choose_best(seen: Sequence[Observation]) -> Observation | None:
    """The most accurate one; of equals the earliest."""
    best: Observation | None = None
    for row in seen:
        if row.measured is None:
            continue
        if best is None or best.measured is None or row.measured.accuracy > best.measured.accuracy:
            best = row
    return best
