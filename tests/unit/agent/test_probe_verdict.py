"""Whether a probed candidate may be activated."""

from __future__ import annotations

from typing import Any

import pytest

from support.factories import a_budget, a_comparison, a_manifest, a_measurement
from trimtab_agent.measure.jobs import JobResult
from trimtab_agent.probe_verdict import refuse_probe
from trimtab_protocol.errors import ErrorCode, ModelError, RejectedError, TrustError
from trimtab_protocol.manifest import Quality
from trimtab_protocol.messages import Policy
from trimtab_protocol.reading import Reading, absent, known

CLASS = "pi4"


def a_result(**changes: Any) -> JobResult:
    return JobResult(**({"job_id": "j", "measurement": a_measurement()} | changes))


def code_of(result: JobResult, budget: dict[str, float], max_p90_ratio: float | None = None) -> Any:
    manifest = a_manifest(budgets={CLASS: a_budget(**budget)})
    error = refuse_probe(result, manifest, CLASS, Policy(max_p90_ratio=max_p90_ratio))
    return error.code if error is not None else None


@pytest.mark.parametrize(
    ("p90_ms", "code"),
    [
        pytest.param(known(10.0, 9.0, 11.0), None, id="surely kept"),
        pytest.param(known(20.0, 19.0, 20.0), None, id="just kept"),
        pytest.param(known(21.0, 19.0, 23.0), None, id="a doubt, left to the gate"),
        pytest.param(absent("too few runs"), None, id="absent, left to the gate"),
        pytest.param(known(25.0, 21.0, 29.0), ErrorCode.REJECTED_BUDGET, id="surely broken"),
    ],
)
def test_only_a_limit_that_is_surely_broken_refuses(
    p90_ms: Reading, code: ErrorCode | None
) -> None:
    result = a_result(measurement=a_measurement(p90_ms=p90_ms))
    assert code_of(result, {"p90_ms": 20.0}) is code


def test_a_budget_for_another_class_does_not_judge() -> None:
    manifest = a_manifest(budgets={"orin": a_budget(p90_ms=0.001)})
    assert refuse_probe(a_result(), manifest, CLASS, Policy()) is None


def test_the_accuracy_that_was_evaluated_by_the_maker_is_judged_too() -> None:
    quality = Quality(samples=1000, exact=0.90, base=0.97)
    manifest = a_manifest(budgets={"*": a_budget(accuracy_drop=0.02)}, quality=quality)
    error = refuse_probe(a_result(), manifest, CLASS, Policy())
    assert isinstance(error, RejectedError)
    assert "accuracy_drop" in error.message


@pytest.mark.parametrize(
    ("ratio", "code"),
    [
        pytest.param(known(0.8, 0.75, 0.85), None, id="faster"),
        pytest.param(known(1.3, 1.1, 1.5), None, id="perhaps as fast as allowed"),
        pytest.param(known(1.3, 1.11, 1.5), ErrorCode.REJECTED_SLOWER, id="surely slower"),
        pytest.param(known(1.3), ErrorCode.REJECTED_SLOWER, id="slower, without an interval"),
        pytest.param(absent("too few runs"), None, id="absent"),
    ],
)
def test_a_candidate_surely_slower_than_allowed_is_refused(
    ratio: Reading, code: ErrorCode | None
) -> None:
    result = a_result(comparison=a_comparison(p90_ratio=ratio))
    assert code_of(result, {}, max_p90_ratio=1.1) is code
    assert code_of(result, {}, max_p90_ratio=None) is None


def test_without_an_incumbent_there_is_nothing_to_be_slower_than() -> None:
    assert code_of(a_result(), {}, max_p90_ratio=0.1) is None


@pytest.mark.parametrize(
    ("code", "branch"),
    [(ErrorCode.MODEL_GOLDEN, ModelError), (ErrorCode.TRUST_PAYLOAD_DIGEST, TrustError)],
)
def test_what_a_child_says_is_the_verdict(code: ErrorCode, branch: type[Exception]) -> None:
    result = a_result(measurement=None, error_code=code, detail="as the child said")
    error = refuse_probe(result, a_manifest(), CLASS, Policy())
    assert isinstance(error, branch)
    assert error.args[0] == "as the child said"


def test_a_child_without_a_measurement_and_without_a_reason_has_crashed() -> None:
    assert code_of(a_result(measurement=None), {}) is ErrorCode.MODEL_CRASH
