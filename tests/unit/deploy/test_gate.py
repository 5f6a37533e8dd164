from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.measurements import make_comparison
from trimtab_deploy.engine.gate import GateResult, StageDevice, combine_ratios, judge_stage
from trimtab_protocol.budget import Metric, Outcome
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import ArtifactRef
from trimtab_protocol.measurement import Comparison
from trimtab_protocol.reading import absent
from trimtab_protocol.rollout import Gate

S = DeploymentState
OLD = ArtifactRef(name="kws", version=1, sha256="1" * 64)


def device(
    name: str,
    state: DeploymentState = S.COMMITTED,
    ratio: tuple[float, ...] | None = None,
    device_class: str = "pi",
    incumbent_p90_ms: float | None = None,
) -> StageDevice:
    return StageDevice(
        device=name,
        device_class=device_class,
        state=state,
        comparison=None if ratio is None else make_comparison(OLD, *ratio),
        incumbent_p90_ms=incumbent_p90_ms,
    )


def judge(*devices: StageDevice, gate: Gate | None = None, is_over: bool = False) -> GateResult:
    found = judge_stage(devices, gate or Gate(), is_over_deadline=is_over)
    assert found is not None
    return found


def test_a_stage_is_waited_for_until_every_device_has_ended() -> None:
    rows = [device("a"), device("b", S.PROBATION)]
    assert judge_stage(rows, Gate(), is_over_deadline=False) is None


@pytest.mark.parametrize("state", [S.FAILED, S.ROLLED_BACK])
def test_one_failure_too_many_fails_at_once_while_others_still_work(state: S) -> None:
    found = judge(device("a", state), device("b", S.FETCHING))
    assert not found.may_go_on
    assert found.verdict.outcome is Outcome.FAIL
    assert "1 of 2" in found.verdict.reason


def test_failures_within_the_allowed_share_pass() -> None:
    rows = [device("a", S.FAILED), *(device(f"b{number}") for number in range(9))]
    assert judge(*rows, gate=Gate(max_failed_ratio=0.1)).may_go_on
    assert not judge(*rows, gate=Gate(max_failed_ratio=0.05)).may_go_on


def test_a_deadline_fails_what_has_not_ended_and_names_some_of_it() -> None:
    rows = [device("a"), *(device(f"slow-{number}", S.ASSIGNED) for number in range(7))]
    found = judge(*rows, is_over=True)
    assert found.verdict.outcome is Outcome.FAIL
    assert "7 of 8" in found.verdict.reason
    assert "and 2 more" in found.verdict.reason


def test_a_deadline_does_not_fail_what_has_ended() -> None:
    assert judge(device("a"), is_over=True).may_go_on


def test_surely_slower_fails_with_a_limit_in_ms() -> None:
    found = judge(device("a", ratio=(1.3, 1.2, 1.4), incumbent_p90_ms=10.0))
    assert found.verdict.outcome is Outcome.FAIL
    (violation,) = found.verdict.violations
    assert violation.metric is Metric.P90_MS
    assert violation.limit == pytest.approx(10.5)
    assert violation.found == pytest.approx(13.0)


def test_surely_slower_without_figures_in_ms_has_no_violation() -> None:
    found = judge(device("a", ratio=(1.3,)))
    assert found.verdict.outcome is Outcome.FAIL
    assert found.verdict.violations == ()


def test_straddling_passes_only_when_the_median_keeps_the_limit_and_says_so() -> None:
    passed = judge(device("a", ratio=(1.0, 0.9, 1.1)))
    assert passed.may_go_on
    assert passed.verdict.outcome is Outcome.INCONCLUSIVE
    assert "inconclusive for pi: passed because the median keeps 1.05" in passed.verdict.reason
    failed = judge(device("a", ratio=(1.08, 1.0, 1.2)))
    assert not failed.may_go_on
    assert failed.verdict.outcome is Outcome.FAIL
    assert "reaches below" in failed.verdict.reason


def test_one_slow_class_fails_although_the_other_is_fast() -> None:
    rows = [device(f"pi-{number}", ratio=(0.5,)) for number in range(9)]
    found = judge(*rows, device("orin-1", ratio=(1.5,), device_class="orin"))
    assert found.verdict.outcome is Outcome.FAIL
    assert found.verdict.reason.startswith("orin: ")


def test_one_slow_device_does_not_fail_its_class() -> None:
    rows = [device(f"pi-{number}", ratio=(0.9,)) for number in range(4)]
    assert judge(*rows, device("odd", ratio=(2.0,))).verdict.outcome is Outcome.PASS


def test_devices_without_a_comparison_are_counted_as_not_compared() -> None:
    empty = Comparison(incumbent=OLD, p50_ratio=absent("noisy"), p90_ratio=absent("noisy"))
    found = judge(device("a"), StageDevice("b", "pi", S.COMMITTED, comparison=empty))
    assert found.verdict.outcome is Outcome.PASS
    assert "2 not compared" in found.verdict.reason


def test_without_a_limit_ratios_are_not_judged() -> None:
    found = judge(device("a", ratio=(9.0,)), gate=Gate(max_p90_ratio=None))
    assert found.may_go_on
    assert "no limit" in found.verdict.reason


def test_a_stage_without_devices_passes() -> None:
    assert judge().may_go_on


@given(
    st.lists(
        st.tuples(st.floats(0.1, 5), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30
    )
)
def test_the_interval_of_the_median_holds_the_median(rows: list[tuple[float, ...]]) -> None:
    devices = [
        device(f"d{number}", ratio=(value, value - low, value + high))
        for number, (value, low, high) in enumerate(rows)
    ]
    (found,) = combine_ratios(devices)
    assert found.devices == len(rows)
    assert found.interval.low <= found.value <= found.interval.high


@given(st.lists(st.sampled_from(list(S)), min_size=1, max_size=12), st.booleans())
def test_a_gate_goes_on_only_when_everybody_has_ended(states: list[S], is_over: bool) -> None:
    rows = [device(f"d{number}", state) for number, state in enumerate(states)]
    found = judge_stage(rows, Gate(max_failed_ratio=1.0), is_over_deadline=is_over)
    if found is not None and found.may_go_on:
        assert set(states) <= {S.COMMITTED, S.FAILED, S.ROLLED_BACK}
