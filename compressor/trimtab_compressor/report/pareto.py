"""Which candidates nothing else beats. Pure."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]
"""Cost, accuracy."""


def is_on_front(point: Point, others: Sequence[Point]) -> bool:
    """Whether no other point costs as little and is better, or is as good and costs less.

    Pareto optimality (V. Pareto, 1906), for a cost to be low and an accuracy to be high.
    """
    cost, accuracy = point
    return not any(
        other_cost <= cost and other_accuracy >= accuracy and (other_cost, other_accuracy) != point
        for other_cost, other_accuracy in others
    )


def mark_front(points: Sequence[Point | None]) -> list[bool]:
    """One mark per point; a point that is not known is on no front."""
    known = [row for row in points if row is not None]
    return [row is not None and is_on_front(row, known) for row in points]
