from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from support.measurements import make_comparison, make_measurement
from trimtab_deploy.engine.status import DeviceStatus, moves_forward, take_progress, take_report
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import PROGRESS, DeploymentState, is_final
from trimtab_protocol.manifest import ArtifactRef
from trimtab_protocol.messages import DeploymentReport, DeploymentStatus

REF = ArtifactRef(name="kws", version=2, sha256="0" * 64)
OLD = ArtifactRef(name="kws", version=1, sha256="1" * 64)
STATES = st.sampled_from(list(DeploymentState))


def make_report(state: DeploymentState, **more: object) -> DeploymentReport:
    return DeploymentReport.model_validate(
        {"report_id": "r", "sent_at": 1, "deployment_id": "d", "state": state, **more}
    )


@given(st.lists(STATES, max_size=20))
def test_whatever_the_order_of_reports_the_state_never_turns_back(
    states: list[DeploymentState],
) -> None:
    status = DeviceStatus(DeploymentState.ASSIGNED)
    for state in states:
        after = take_report(status, make_report(state))
        assert PROGRESS[after.state] >= PROGRESS[status.state]
        if is_final(status.state):
            assert after.state is status.state
        status = after


@given(st.lists(STATES, max_size=20), STATES)
def test_reported_progress_never_ends_a_deployment(
    states: list[DeploymentState], first: DeploymentState
) -> None:
    status = DeviceStatus(first)
    for state in states:
        after = take_progress(status, DeploymentStatus(deployment_id="d", state=state))
        assert is_final(after.state) is is_final(first)
        assert PROGRESS[after.state] >= PROGRESS[status.state]
        status = after


@given(STATES)
def test_a_repeat_changes_nothing(state: DeploymentState) -> None:
    report = make_report(state, detail="once")
    once = take_report(DeviceStatus(DeploymentState.ASSIGNED), report)
    assert take_report(once, report) == once


def test_figures_of_a_late_report_are_still_taken() -> None:
    ended = take_report(
        DeviceStatus(DeploymentState.ASSIGNED), make_report(DeploymentState.COMMITTED, active=REF)
    )
    late = take_report(
        ended,
        make_report(
            DeploymentState.ACTIVATING,
            measurement=make_measurement(REF),
            incumbent=make_measurement(OLD),
            comparison=make_comparison(OLD, 0.5),
            active=OLD,
            detail="late",
        ),
    )
    assert late.state is DeploymentState.COMMITTED
    assert late.active == REF
    assert late.detail == ""
    assert late.comparison is not None
    assert late.measurement is not None
    assert late.incumbent is not None


def test_the_first_figures_stay() -> None:
    first = take_report(
        DeviceStatus(DeploymentState.ASSIGNED),
        make_report(DeploymentState.ACTIVATING, comparison=make_comparison(OLD, 0.5)),
    )
    second = take_report(
        first, make_report(DeploymentState.PROBATION, comparison=make_comparison(OLD, 0.9))
    )
    assert second.comparison == first.comparison


def test_a_failure_keeps_its_reason() -> None:
    failed = take_report(
        DeviceStatus(DeploymentState.PROBING),
        make_report(DeploymentState.FAILED, error_code=ErrorCode.MODEL_LOAD, detail="no"),
    )
    assert (failed.error_code, failed.detail) == (ErrorCode.MODEL_LOAD, "no")


def test_committed_is_not_followed_by_rolled_back() -> None:
    assert not moves_forward(DeploymentState.COMMITTED, DeploymentState.ROLLED_BACK)
    assert moves_forward(DeploymentState.PROBATION, DeploymentState.ROLLED_BACK)
