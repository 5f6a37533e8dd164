"""Pure judgements of a fit: on the host, per class, over all classes, and what came nearest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trimtab_compressor.fit_report import CandidateReport, ClassReport
from trimtab_protocol.budget import Budget, Metric, Outcome, Verdict, judge
from trimtab_protocol.manifest import Quality
from trimtab_protocol.measurement import Measurement
from trimtab_protocol.reading import absent, known

HOST_METRICS = (Metric.SIZE_BYTES, Metric.ACCURACY_DROP)
MAX_TRIALS = 3
"""An inconclusive measurement is taken again until this many."""


def judge_on_host(budget: Budget, size_bytes: int, quality: Quality) -> Verdict:
    """Judge what needs no device: size and accuracy."""
    drop = quality.drop()
    limits = {metric: limit for metric, limit in budget.limits.items() if metric in HOST_METRICS}
    readings = {
        Metric.SIZE_BYTES: known(float(size_bytes)),
        Metric.ACCURACY_DROP: absent("not evaluated") if drop is None else known(drop),
    }
    return judge(Budget(limits=limits), readings)


def judge_measurement(budget: Budget, measurement: Measurement, quality: Quality) -> Verdict:
    """Judge everything, by what a device measured and the host's accuracy."""
    return judge(budget, measurement.readings(quality.drop()))


def is_worth_repeating(budget: Budget, verdict: Verdict, measurement: Measurement) -> bool:
    """Whether another measurement could settle an inconclusive verdict.

    A figure that is absent (no energy sensor, too few runs) stays absent.
    """
    if verdict.outcome is not Outcome.INCONCLUSIVE:
        return False
    readings = measurement.readings(0.0)
    return all(readings[metric].value is not None for metric in budget.limits)


def combine_verdicts(host: Verdict, classes: Iterable[ClassReport]) -> tuple[Outcome, str]:
    """One outcome and its reason over the host and all classes; the worst wins."""
    rows = list(classes)
    if host.outcome is Outcome.FAIL:
        return Outcome.FAIL, f"on the host: {host.reason}"
    for outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE):
        for row in rows:
            if row.verdict.outcome is outcome:
                return outcome, f"on {row.device_class}: {row.verdict.reason}"
    return Outcome.PASS, "every limit is kept on every class"


def excess_of(candidate: CandidateReport) -> float | None:
    """Largest surely broken limit, as a ratio; 0 if none is; None if it was never judged."""
    verdicts = [row.verdict for row in candidate.classes if row.error_code is None]
    if candidate.host_verdict is not None:
        verdicts.append(candidate.host_verdict)
    if not verdicts or any(row.error_code is not None for row in candidate.classes):
        return None
    return max((row.excess_ratio for one in verdicts for row in one.violations), default=0.0)


def nearest_candidate(candidates: Iterable[CandidateReport]) -> CandidateReport | None:
    """The one that misses by the least; the gentler of two equals."""
    judged = [(excess, row) for row in candidates if (excess := excess_of(row)) is not None]
    return min(judged, key=lambda pair: pair[0])[1] if judged else None


def explain_failure(candidates: Iterable[CandidateReport], budgets: Mapping[str, Budget]) -> str:
    """Why nothing was chosen, and what came nearest."""
    rows = list(candidates)
    nearest = nearest_candidate(rows)
    where = ", ".join(budgets)
    if nearest is None:
        reasons = "; ".join(f"{row.recipe} ({row.format.value}): {row.reason}" for row in rows[:3])
        return f"no candidate could be judged on {where}: {reasons}"
    excess = excess_of(nearest)
    miss = f"misses by {excess:.1%}" if excess else "is not sure to keep it"
    return (
        f"no candidate keeps the budget on {where}; the nearest, {nearest.recipe} "
        f"({nearest.format.value}), {miss}: {nearest.reason}. Loosen the budget or measure longer"
    )
