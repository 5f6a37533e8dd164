"""The judgements of a fit."""

from __future__ import annotations

from support.factories import a_budget, a_measurement
from trimtab_compressor.fit_report import CandidateReport, ClassReport
from trimtab_compressor.verdicts import (
    combine_verdicts,
    excess_of,
    explain_failure,
    is_worth_repeating,
    judge_measurement,
    judge_on_host,
    nearest_candidate,
)
from trimtab_protocol.budget import Budget, Metric, Outcome, Verdict, Violation
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.manifest import ModelFormat, Quality
from trimtab_protocol.reading import known

PASS = Verdict(outcome=Outcome.PASS, reason="every limit is kept")
DOUBT = Verdict(outcome=Outcome.INCONCLUSIVE, reason="p90_ms straddles")


def over(excess_ratio: float) -> Verdict:
    row = Violation(
        metric=Metric.P90_MS, limit=1, found=1 + excess_ratio, excess_ratio=excess_ratio
    )
    return Verdict(outcome=Outcome.FAIL, reason=f"over by {excess_ratio:.0%}", violations=(row,))


def on_class(verdict: Verdict, name: str = "pi4", error: ErrorCode | None = None) -> ClassReport:
    return ClassReport(device_class=name, verdict=verdict, error_code=error)


def a_candidate(recipe: str, *verdicts: Verdict, host: Verdict | None = None) -> CandidateReport:
    return CandidateReport(
        recipe=recipe,
        format=ModelFormat.ONNX,
        outcome=Outcome.FAIL,
        reason=f"{recipe} was not kept",
        host_verdict=host,
        classes=tuple(on_class(verdict) for verdict in verdicts),
    )


def a_quality(exact: float, on_host: float | None = None) -> Quality:
    return Quality(samples=100, exact=exact, on_host=on_host, base=0.99)


def test_the_host_judges_size_and_accuracy_and_nothing_else() -> None:
    budget = a_budget(size_bytes=100.0, accuracy_drop=0.01, p90_ms=0.001)
    assert judge_on_host(budget, 100, a_quality(0.985)).outcome is Outcome.PASS
    assert judge_on_host(budget, 101, a_quality(0.985)).outcome is Outcome.FAIL
    assert judge_on_host(budget, 100, a_quality(0.97)).outcome is Outcome.FAIL


def test_the_exact_accuracy_decides_and_not_the_hosts() -> None:
    assert (
        judge_on_host(a_budget(accuracy_drop=0.01), 1, a_quality(0.985, 0.5)).outcome
        is Outcome.PASS
    )


def test_an_unknown_accuracy_is_never_a_pass() -> None:
    quality = Quality(samples=1, exact=0.9)
    assert judge_on_host(a_budget(accuracy_drop=0.5), 1, quality).outcome is Outcome.INCONCLUSIVE


def test_a_straddling_figure_is_worth_repeating_and_an_absent_one_is_not() -> None:
    straddling = a_measurement(p90_ms=known(12.0, 11.0, 13.0))
    budget = a_budget(p90_ms=12.5)
    verdict = judge_measurement(budget, straddling, a_quality(0.99))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert is_worth_repeating(budget, verdict, straddling)
    with_energy = a_budget(p90_ms=12.5, energy_mj=3.0)
    verdict = judge_measurement(with_energy, straddling, a_quality(0.99))
    assert not is_worth_repeating(with_energy, verdict, straddling)
    assert not is_worth_repeating(budget, over(0.1), straddling)


def test_the_worst_of_host_and_classes_wins() -> None:
    assert combine_verdicts(PASS, [on_class(PASS)])[0] is Outcome.PASS
    assert combine_verdicts(over(0.1), [on_class(PASS)])[0] is Outcome.FAIL
    rows = [on_class(PASS, "a"), on_class(DOUBT, "b"), on_class(over(0.2), "c")]
    outcome, reason = combine_verdicts(PASS, rows)
    assert outcome is Outcome.FAIL
    assert "on c" in reason
    assert combine_verdicts(PASS, rows[:2]) == (Outcome.INCONCLUSIVE, "on b: p90_ms straddles")


def test_the_nearest_misses_by_the_least_on_its_worst_class() -> None:
    far = a_candidate("far", over(0.1), over(0.9))
    near = a_candidate("near", over(0.4), over(0.3))
    assert nearest_candidate([far, near]) == near
    assert "near (onnx), misses by 40.0%" in explain_failure([far, near], {"pi4": Budget()})


def test_a_candidate_in_doubt_is_nearer_than_one_that_surely_misses() -> None:
    doubtful = a_candidate("doubtful", DOUBT)
    assert nearest_candidate([a_candidate("over", over(0.01)), doubtful]) == doubtful
    assert "not sure to keep it" in explain_failure([doubtful], {"pi4": Budget()})


def test_a_host_violation_counts_and_a_failed_trial_does_not() -> None:
    ruled_out = a_candidate("big", host=over(2.0))
    crashed = CandidateReport(
        recipe="crashed",
        format=ModelFormat.ONNX,
        outcome=Outcome.INCONCLUSIVE,
        reason="the child was killed",
        host_verdict=PASS,
        classes=(on_class(DOUBT, error=ErrorCode.MODEL_CRASH),),
    )
    assert excess_of(crashed) is None
    assert nearest_candidate([crashed, ruled_out]) == ruled_out
    assert "could be judged" in explain_failure([crashed], {"pi4": Budget()})
