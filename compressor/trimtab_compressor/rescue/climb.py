"""Climb the ladder: carry out what `decide_next` says, and give all that was seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from trimtab_compressor.rescue.decide import (
    Goal,
    Measured,
    Observation,
    Rank,
    Stop,
    Try,
    decide_next,
)
from trimtab_compressor.rescue.rungs import Setting
from trimtab_protocol.errors import ConfigError, ModelError


class Bench(Protocol):
    """Where settings are carried out."""

    def measure(self, setting: Setting) -> Measured:
        """Quantize and run on the real runtime.

        Raises:
            ModelError: It cannot be done with this model.
            ConfigError: It cannot be done with this format, or not with this subject.
        """

    def rank(self, setting: Setting) -> tuple[str, ...]:
        """Names of the layers, from the one on whose float arithmetic the outputs gain most.

        Raises:
            ModelError: The layers of this model cannot be told apart.
        """


@dataclass(frozen=True)
class Climb:
    """What a climb saw.

    Args:
        goal: What was asked for.
        seen: Every setting that was tried, in order.
        stop: How it ended.
    """

    goal: Goal
    seen: tuple[Observation, ...]
    stop: Stop


def climb(bench: Bench, goal: Goal, start: Setting, report: Callable[[str], None]) -> Climb:
    """Climb until the drop is allowed, or there is no rung left.

    Args:
        bench: See Bench.
        goal: How much may be lost.
        start: What the first rung tries.
        report: Told each observation in one line.
    """
    seen: list[Observation] = []
    ranking: tuple[str, ...] | None = None
    while True:
        action = decide_next(seen, goal, start, ranking)
        if isinstance(action, Stop):
            return Climb(goal, tuple(seen), action)
        if isinstance(action, Rank):
            try:
                ranking = bench.rank(action.setting)
                continue
            except (ModelError, ConfigError) as error:
                ranking = ()
                observation = Observation(action.rung, action.setting, None, error.message)
        else:
            observation = _observe(bench, action)
        seen.append(observation)
        report(describe(observation, goal))


def describe(observation: Observation, goal: Goal) -> str:
    """An observation in one line."""
    if observation.measured is None:
        return f"{observation.rung}: cannot be done here: {observation.reason}"
    accuracy = observation.measured.accuracy
    return f"{observation.rung}: {accuracy:.4f}, {goal.drop_points(accuracy):+.2f} points lost"


def _observe(bench: Bench, action: Try) -> Observation:
    try:
        return Observation(action.rung, action.setting, bench.measure(action.setting))
    except (ModelError, ConfigError) as error:
        return Observation(action.rung, action.setting, None, error.message)
