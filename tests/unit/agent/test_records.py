"""What is remembered of a deployment, and what is reported of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.factories import a_comparison, a_measurement, a_ref, a_signed_manifest
from trimtab_agent.measure.jobs import JobResult
from trimtab_agent.records import DeploymentRecord, ModelRecord, to_report, to_status
from trimtab_protocol.base import parse_wire
from trimtab_protocol.errors import ErrorCode, ModelError, ProtocolError
from trimtab_protocol.lifecycle import TRANSITIONS, DeploymentEvent, DeploymentState
from trimtab_protocol.messages import Policy, encode, parse_report


def a_record(
    state: DeploymentState = DeploymentState.ASSIGNED, **changes: object
) -> DeploymentRecord:
    record = DeploymentRecord(
        deployment_id="d1", signed=a_signed_manifest(), policy=Policy(), state=state
    )
    return record.model_copy(update=changes)


@pytest.mark.parametrize("state", list(DeploymentState))
@pytest.mark.parametrize("event", list(DeploymentEvent))
def test_a_record_moves_exactly_as_the_table_says(
    state: DeploymentState, event: DeploymentEvent
) -> None:
    expected = TRANSITIONS.get((state, event))
    if expected is None:
        with pytest.raises(ProtocolError):
            a_record(state).moved(event)
    else:
        assert a_record(state).moved(event).state is expected


def test_a_step_forward_forgets_the_starts_that_were_counted() -> None:
    moved = a_record(DeploymentState.PROBING, starts=2).moved(DeploymentEvent.PROBED)
    assert moved.starts == 0


def test_an_ending_keeps_its_code_and_its_sentence() -> None:
    error = ModelError("off by 3", code=ErrorCode.MODEL_GOLDEN)
    moved = a_record(DeploymentState.PROBING).moved(DeploymentEvent.FAIL, error)
    assert (moved.error_code, moved.detail) == (ErrorCode.MODEL_GOLDEN, "off by 3")


def test_the_artifact_is_named_from_its_manifest() -> None:
    assert a_record().artifact is None
    assert a_record().with_artifact().artifact == a_ref()


def test_a_journal_survives_its_travel_through_a_file() -> None:
    probe = JobResult(job_id="j", measurement=a_measurement(), comparison=a_comparison())
    record = a_record(DeploymentState.PROBING, probe=probe, starts=2).with_artifact()
    model = ModelRecord(name="digits", highest_version=7, deployment=record)
    text = model.model_dump_json(exclude_none=True)
    assert parse_wire(ModelRecord, text, what="journal") == model


def test_a_status_shows_how_far_the_download_is() -> None:
    status = to_status(a_record(DeploymentState.FETCHING), 3, 10)
    assert (status.fetched_chunks, status.total_chunks) == (3, 10)
    assert status.state is DeploymentState.FETCHING


def test_a_report_carries_what_the_probe_found() -> None:
    probe = JobResult(
        job_id="j",
        measurement=a_measurement(),
        incumbent=a_measurement(),
        comparison=a_comparison(),
    )
    report = to_report(a_record(probe=probe), a_ref(version=9), 5.0)
    assert report.measurement == probe.measurement
    assert report.incumbent == probe.incumbent
    assert report.comparison == probe.comparison
    assert report.active == a_ref(version=9)
    assert report.sent_at == 5.0


def test_the_same_state_has_the_same_report_id_and_another_state_another() -> None:
    first = to_report(a_record(), None, 1.0).report_id
    assert to_report(a_record(), None, 2.0).report_id == first
    assert to_report(a_record(DeploymentState.FETCHING), None, 1.0).report_id != first


@given(
    deployment_id=st.from_regex(r"[A-Za-z0-9._:-]{1,80}", fullmatch=True),
    state=st.sampled_from(DeploymentState),
)
def test_every_deployment_id_of_the_protocol_can_be_reported(
    deployment_id: str, state: DeploymentState
) -> None:
    report = to_report(a_record(state, deployment_id=deployment_id), None, 1.0)
    assert parse_report(encode(report)) == report


def test_the_longest_ids_still_tell_deployments_and_states_apart() -> None:
    ids = {
        to_report(a_record(state, deployment_id="x" * 79 + last), None, 1.0).report_id
        for state in DeploymentState
        for last in "ab"
    }
    assert len(ids) == 2 * len(DeploymentState)
