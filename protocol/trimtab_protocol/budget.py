"""Budgets: what a candidate must keep on a device class, and how it is judged.

Rules:
    1. A limit is an upper bound in the metric's own unit.
    2. A metric that is absent cannot be judged: the verdict is inconclusive, never a pass.
    3. Where an interval is known, a value over the limit whose interval still reaches below it, or
       the reverse, is inconclusive: measure again rather than guess.
    4. One limit surely broken is a fail, whatever the others say.
    5. A value outside its own interval widens it: such a reading contradicts itself, and may
       neither pass nor fail on one half of what it says.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import Enum
from typing import Annotated

from pydantic import Field, model_validator

from trimtab_protocol.base import WireModel
from trimtab_protocol.reading import Reading


class Metric(str, Enum):
    """What a budget may limit. The unit is in the name; ratios run from 0 to 1."""

    P50_MS = "p50_ms"
    P90_MS = "p90_ms"
    P95_MS = "p95_ms"
    P99_MS = "p99_ms"
    ENERGY_MJ = "energy_mj"  # per inference, dynamic
    PEAK_MEMORY_BYTES = "peak_memory_bytes"  # VmHWM of the process that runs the model
    SIZE_BYTES = "size_bytes"  # payload
    ACCURACY_DROP = "accuracy_drop"  # against the base model, as a ratio


class Outcome(str, Enum):
    """The three ways a judgement can end."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Budget(WireModel):
    """Upper limits per metric; empty means that everything is allowed."""

    limits: dict[Metric, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _positive_times(self) -> Budget:
        for metric, limit in self.limits.items():
            if limit == 0 and metric is not Metric.ACCURACY_DROP:
                raise ValueError(f"a limit of 0 for {metric.value} can never be kept")
        return self


class Violation(WireModel):
    """One limit that was not kept."""

    metric: Metric
    limit: float
    found: float
    excess_ratio: float = Field(description="found / limit - 1; 0.1 is ten percent over")


class Verdict(WireModel):
    """A judgement with its reason.

    From `judge`, `violations` is non-empty exactly when the outcome is fail. A gate may also fail
    for what is not a metric (devices that failed, a deadline) and has none then.
    """

    outcome: Outcome
    reason: str
    violations: tuple[Violation, ...] = ()


def judge(budget: Budget, readings: Mapping[Metric, Reading]) -> Verdict:
    """Hold measured readings against a budget.

    Args:
        budget: The limits.
        readings: What is known, by metric; a missing metric counts as absent.

    Returns:
        fail with all sure violations; else inconclusive with every doubt; else pass.
    """
    violations: list[Violation] = []
    doubts: list[str] = []
    for metric, limit in budget.limits.items():
        reading = readings.get(metric, Reading(absent="not measured"))
        if reading.value is None:
            doubts.append(f"{metric.value} is absent: {reading.absent}")
            continue
        low = min(reading.low_or_value(), reading.value)
        high = max(reading.high_or_value(), reading.value)
        if low > limit:
            violations.append(_violation(metric, limit, reading.value))
        elif high > limit:
            doubts.append(
                f"{metric.value} {_show(metric, reading.value)} "
                f"[{_show(metric, low)}, {_show(metric, high)}] straddles {_show(metric, limit)}"
            )
    if violations:
        worst = max(violations, key=lambda row: row.excess_ratio)
        reason = (
            f"{worst.metric.value} {_show(worst.metric, worst.found)} is over its limit "
            f"{_show(worst.metric, worst.limit)} "
            f"by {worst.excess_ratio:.1%}"
        )
        return Verdict(outcome=Outcome.FAIL, reason=reason, violations=tuple(violations))
    if doubts:
        return Verdict(outcome=Outcome.INCONCLUSIVE, reason="; ".join(doubts))
    return Verdict(outcome=Outcome.PASS, reason="every limit is kept")


def _show(metric: Metric, value: float) -> str:
    return f"{value:,.0f}" if metric.value.endswith("_bytes") else f"{value:.6g}"


def _violation(metric: Metric, limit: float, found: float) -> Violation:
    excess = found / limit - 1.0 if limit > 0 else float(found)
    finite = min(excess, sys.float_info.max)  # a tiny limit overflows the quotient
    return Violation(metric=metric, limit=limit, found=found, excess_ratio=finite)
