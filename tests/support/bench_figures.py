"""From what a benchmark timed to a table of figure, value, target and verdict: pure.

Rules:
    1. Two ways to time are compared in rounds, one process of each per round. The figure is the
       ratio of their medians; its interval is a bootstrap over rounds (2,000 draws, 95 %, fixed
       seed), so that what drifts within the run widens it.
    2. Two whole measurements of one file differ by the larger over the smaller, so that two that
       err to different sides do not cancel out; the figure is the median over the pairs.
    3. A target is met by the value alone. An interval that reaches past it is said, not hidden.
    4. On a machine that is not quiet the figures stand, with the complaint above them. A plain loop
       that does not repeat itself, one round and the next, is such a complaint: whatever the agent
       measured then, the machine had changed in between.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

DRAWS = 2000
CONFIDENCE = 0.95

QUIET_LOAD = 0.5
QUIET_OTHERS_CORES = 0.1
QUIET_STEAL_RATIO = 0.01
QUIET_REPEAT_RATIO = 0.03


@dataclass(frozen=True)
class Spread:
    """A value with the interval it lies in."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """One line of the table. `is_met` is None where there is no target, or no value."""

    label: str
    value: str
    target: str = ""
    is_met: bool | None = None
    note: str = ""


def ratio_of_medians(firsts: Sequence[float], seconds: Sequence[float], seed: int = 0) -> Spread:
    """First over second, with a bootstrap over rounds.

    Args:
        firsts: One value per round.
        seconds: What was timed beside each of them, in the same order.

    Raises:
        ValueError: There are no rounds, or not as many of the one as of the other.
    """
    rounds = list(zip(firsts, seconds, strict=True))
    if not rounds:
        raise ValueError("a ratio needs at least one round")
    generator = random.Random(seed)
    draws = sorted(
        _ratio(generator.choices(rounds, k=len(rounds))) for _ in range(DRAWS if rounds[1:] else 1)
    )
    cut = int(len(draws) * (1 - CONFIDENCE) / 2)
    return Spread(_ratio(rounds), draws[cut], draws[-1 - cut])


def _ratio(rounds: Sequence[tuple[float, float]]) -> float:
    return statistics.median(one for one, _ in rounds) / statistics.median(
        other for _, other in rounds
    )


def differences(pairs: Sequence[tuple[float, float]]) -> Spread:
    """How much two measurements of the same thing differ: larger over smaller, less 1.

    Returns:
        The median over the pairs, with the smallest and the largest.
    """
    found = sorted(max(pair) / min(pair) - 1 for pair in pairs)
    return Spread(statistics.median(found), found[0], found[-1])


def agreement_figure(label: str, ratio: Spread, within: float, note: str) -> Figure:
    """Whether a ratio is as close to 1 as is asked for."""
    is_met = abs(ratio.value - 1) <= within
    reaches_past = max(abs(ratio.low - 1), abs(ratio.high - 1)) > within
    if is_met and reaches_past:
        note += "; the interval reaches past the target"
    return Figure(
        label,
        f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
        f"1 ± {within:.2f}",
        is_met,
        note,
    )


def side_by_side(values: Sequence[float]) -> list[tuple[float, float]]:
    """The first value with the second, the third with the fourth: each used once."""
    return list(zip(values[::2], values[1::2], strict=False))


def repeat_figure(label: str, found: Spread, at_most: float | None, note: str) -> Figure:
    """Whether two measurements are as close as is asked for; None to ask for nothing."""
    value = f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"
    if at_most is None:
        return Figure(label, value, note=note)
    return Figure(label, value, f"≤ {at_most:.0%}", found.value <= at_most, note)


def limit_figure(
    label: str, value: float, limit: float | None, form: str = "{:.1f} MB", note: str = ""
) -> Figure:
    """A value that should not be above a limit, in the unit that `form` writes; None for no limit."""
    if limit is None:
        return Figure(label, form.format(value), note=note)
    return Figure(label, form.format(value), f"≤ {form.format(limit)}", value <= limit, note)


def complain(
    load_1m: float, others_cores: float, steal_ratio: float, repeats: Sequence[float] = ()
) -> tuple[str, ...]:
    """Why a machine is not quiet; nothing if it is.

    Args:
        load_1m: Load average before the benchmark began.
        others_cores: Cores that other processes kept busy meanwhile.
        steal_ratio: Share of the time that the hypervisor took away.
        repeats: How much a plain loop differed from itself, per model.
    """
    found = []
    if max(repeats, default=0) > QUIET_REPEAT_RATIO:
        found.append(
            f"a plain loop differed from the next one by {max(repeats):.1%}, above "
            f"{QUIET_REPEAT_RATIO:.0%}: the machine changes its speed"
        )
    if load_1m > QUIET_LOAD:
        found.append(f"load average {load_1m:.2f} at the start, above {QUIET_LOAD}")
    if others_cores > QUIET_OTHERS_CORES:
        found.append(f"other processes kept {others_cores:.2f} cores busy")
    if steal_ratio > QUIET_STEAL_RATIO:
        found.append(f"the hypervisor took {steal_ratio:.1%} of the time")
    return tuple(found)


def render(figures: Sequence[Figure], complaints: Sequence[str]) -> str:
    """The table, and above it what speaks against it."""
    head = [f"machine is not quiet: {text}" for text in complaints]
    rows = [("figure", "value", "target", "")] + [
        (row.label, row.value, row.target, _verdict(row.is_met)) for row in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    notes = ["", *(row.note for row in figures)]
    lines = [
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=True)), note))
        for row, note in zip(rows, notes, strict=True)
    ]
    return "\n".join([*head, *(line.rstrip() for line in lines)])


def _verdict(is_met: bool | None) -> str:
    return {None: "", True: "met", False: "not met"}[is_met]
