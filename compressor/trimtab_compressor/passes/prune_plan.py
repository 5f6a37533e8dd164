"""How many channels of each group remain. Pure: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ChannelGroup:
    """Layers whose channels can only go together.

    Args:
        name: Of its first layer.
        importance: One value per channel that is there now.
        initial: Channels before the first step.
        own_ratio: Share that goes, if the group has a ratio of its own.
        parts: Its channels are cut into this many equal parts (grouped convolution, group
            normalisation), which stay equal.
    """

    name: str
    importance: tuple[float, ...]
    initial: int
    own_ratio: float | None = None
    parts: int = 1

    @property
    def current(self) -> int:
        """Channels that are there now."""
        return len(self.importance)


def plan_widths(
    groups: Sequence[ChannelGroup], ratio: float, grid: int, *, is_global: bool
) -> tuple[int, ...]:
    """Channels that remain of each group: a multiple of the grid, at least one of it.

    A group that is already at or below what it should have is left as it is.

    Args:
        groups: All that may be pruned.
        ratio: Share of the initial channels that goes, in [0, 1).
        grid: Multiple that channel counts should have.
        is_global: Compare the channels of all groups without a ratio of their own; else of each.
    """
    shared = [row for row in groups if row.own_ratio is None]
    bar = _find_bar(shared, ratio) if is_global else -math.inf
    widths = []
    for group in groups:
        if group.own_ratio is not None:
            wanted = group.initial * (1 - group.own_ratio)
        elif is_global:
            wanted = sum(value >= bar for value in group.importance)
        else:
            wanted = group.initial * (1 - ratio)
        widths.append(_fit_grid(wanted, group.current, math.lcm(grid, group.parts)))
    return tuple(widths)


def _find_bar(groups: Sequence[ChannelGroup], ratio: float) -> float:
    """The importance of the last channel that remains, of all together."""
    values = sorted((value for row in groups for value in row.importance), reverse=True)
    remaining = round(sum(row.initial for row in groups) * (1 - ratio))
    return values[min(remaining, len(values)) - 1] if values and remaining else math.inf


def _fit_grid(wanted: float, current: int, unit: int) -> int:
    """The nearest multiple, the larger of two; what is not above the wanted width stays."""
    if current <= wanted:
        return current
    return min(current, unit * max(1, math.floor(wanted / unit + 0.5)))


def choose_channels(importance: Sequence[float], width: int, parts: int) -> list[int]:
    """The least important channels, so that `width` remain; the same ones of each part.

    Args:
        importance: One value per channel.
        width: Channels that remain; a multiple of `parts`.
        parts: See ChannelGroup.
    """
    size = len(importance) // parts
    sums = [sum(importance[row::size]) for row in range(size)]
    order = sorted(range(size), key=lambda row: sums[row])
    gone = order[: size - width // parts]
    return sorted(row + part * size for part in range(parts) for row in gone)
