"""Whether a stage of a rollout may be followed by the next.

Rules, in this order:
    1. More than `max_failed_ratio` of the stage's devices failed or rolled back: fail, at once.
    2. The deadline is over and a device has not ended: fail.
    3. A device has not ended: wait.
    4. Per device class, the median over its devices of the p90 ratio (candidate against incumbent,
       measured by each device on itself while probing): surely above `max_p90_ratio` is a fail. A
       ratio whose interval straddles the limit is inconclusive; it passes only if the median itself
       keeps the limit, and the reason says so.
    5. A device without an incumbent, or whose comparison is absent, is not compared; the reason
       counts it.
    6. Nothing of this broken: pass.

The interval of the median is (median of the lower ends, median of the upper ends): if every
device's interval holds its true ratio, this one holds the median of the true ratios.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trimtab_protocol.budget import Metric, Outcome, Verdict, Violation
from trimtab_protocol.lifecycle import DeploymentState, is_final
from trimtab_protocol.measurement import Comparison
from trimtab_protocol.reading import Interval
from trimtab_protocol.rollout import Gate

BAD_STATES = (DeploymentState.FAILED, DeploymentState.ROLLED_BACK)


@dataclass(frozen=True)
class StageDevice:
    """One device of the stage that is judged.

    Args:
        device: Its name.
        device_class: Its class.
        state: Where its deployment stands.
        reason: Why it failed, for the verdict.
        comparison: Candidate against incumbent, if it made one.
        incumbent_p90_ms: The incumbent's p90 in that comparison, to express a limit in ms.
    """

    device: str
    device_class: str
    state: DeploymentState
    reason: str = ""
    comparison: Comparison | None = None
    incumbent_p90_ms: float | None = None


@dataclass(frozen=True)
class ClassRatio:
    """The p90 ratio of one device class."""

    device_class: str
    devices: int
    value: float
    interval: Interval
    incumbent_p90_ms: float | None


@dataclass(frozen=True)
class GateResult:
    """A verdict and whether the rollout goes on."""

    verdict: Verdict
    may_go_on: bool


def judge_stage(
    devices: Sequence[StageDevice], gate: Gate, *, is_over_deadline: bool
) -> GateResult | None:
    """Judge a stage; None while it has to be waited for."""
    failed = _judge_failures(devices, gate)
    if failed is not None:
        return failed
    waiting = [row.device for row in devices if not is_final(row.state)]
    if waiting and is_over_deadline:
        return _fail(
            f"{len(waiting)} of {len(devices)} devices have not ended within "
            f"{gate.deadline_s:g} s: {_name_some(waiting)}"
        )
    return None if waiting else _judge_ratios(devices, gate)


def combine_ratios(devices: Iterable[StageDevice]) -> list[ClassRatio]:
    """The median p90 ratio of each device class that has one, in the order of their names."""
    by_class: dict[str, list[StageDevice]] = defaultdict(list)
    for row in devices:
        if row.comparison is not None and row.comparison.p90_ratio.value is not None:
            by_class[row.device_class].append(row)
    return [_combine(device_class, rows) for device_class, rows in sorted(by_class.items())]


def _combine(device_class: str, rows: Sequence[StageDevice]) -> ClassRatio:
    ratios = [row.comparison.p90_ratio for row in rows if row.comparison is not None]
    incumbents = [row.incumbent_p90_ms for row in rows if row.incumbent_p90_ms is not None]
    return ClassRatio(
        device_class=device_class,
        devices=len(rows),
        value=statistics.median(ratio.known() for ratio in ratios),
        interval=Interval(
            low=statistics.median(ratio.low_or_value() for ratio in ratios),
            high=statistics.median(ratio.high_or_value() for ratio in ratios),
        ),
        incumbent_p90_ms=statistics.median(incumbents) if incumbents else None,
    )


def _judge_failures(devices: Sequence[StageDevice], gate: Gate) -> GateResult | None:
    bad = [row for row in devices if row.state in BAD_STATES]
    if not devices or len(bad) / len(devices) <= gate.max_failed_ratio:
        return None
    first = bad[0]
    return _fail(
        f"{len(bad)} of {len(devices)} devices failed or rolled back, more than "
        f"{gate.max_failed_ratio:.0%}: {_name_some([row.device for row in bad])}; "
        f"{first.device}: {first.reason or first.state.value}"
    )


def _judge_ratios(devices: Sequence[StageDevice], gate: Gate) -> GateResult:
    if not devices:
        return _pass("the stage adds no device")
    ended = f"{_count(devices, DeploymentState.COMMITTED)} of {len(devices)} devices committed"
    limit = gate.max_p90_ratio
    if limit is None:
        return _pass(f"{ended}; no limit on the p90 ratio")
    found = combine_ratios(devices)
    over = [row for row in found if row.interval.low > limit]
    if over:
        return _over_limit(over, limit, "surely above")
    doubtful = [row for row in found if row.interval.high > limit]
    over = [row for row in doubtful if row.value > limit]
    if over:
        return _over_limit(over, limit, "above, though its interval reaches below,")
    notes = [ended, *(_describe(row) for row in found)]
    left_out = len(devices) - sum(row.devices for row in found)
    if left_out:
        notes.append(f"{left_out} not compared (no incumbent, or no comparison)")
    if not doubtful:
        return _pass("; ".join(notes))
    names = ", ".join(row.device_class for row in doubtful)
    notes.append(f"inconclusive for {names}: passed because the median keeps {limit:g}")
    return GateResult(Verdict(outcome=Outcome.INCONCLUSIVE, reason="; ".join(notes)), True)


def _over_limit(over: Sequence[ClassRatio], limit: float, how: str) -> GateResult:
    worst = max(over, key=lambda row: row.value)
    violations = tuple(
        Violation(
            metric=Metric.P90_MS,
            limit=limit * row.incumbent_p90_ms,
            found=row.value * row.incumbent_p90_ms,
            excess_ratio=row.value / limit - 1.0,
        )
        for row in over
        if row.incumbent_p90_ms is not None
    )
    return _fail(f"{_describe(worst)} is {how} the limit {limit:g}", violations)


def _describe(row: ClassRatio) -> str:
    return (
        f"{row.device_class}: p90 ratio {row.value:.3g} "
        f"[{row.interval.low:.3g}, {row.interval.high:.3g}] over {row.devices} devices"
    )


def _count(devices: Sequence[StageDevice], state: DeploymentState) -> int:
    return sum(row.state is state for row in devices)


def _name_some(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _pass(reason: str) -> GateResult:
    return GateResult(Verdict(outcome=Outcome.PASS, reason=reason), may_go_on=True)


def _fail(reason: str, violations: tuple[Violation, ...] = ()) -> GateResult:
    verdict = Verdict(outcome=Outcome.FAIL, reason=reason, violations=violations)
    return GateResult(verdict, may_go_on=False)
