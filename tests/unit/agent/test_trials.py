"""Trials: measured without being activated, answered whatever happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.agent_rig import AgentRig
from support.artifacts import make_artifact
from support.factories import STRANGER_KEY
from trimtab_agent.measure.jobs import JobKind
from trimtab_agent.trials import MAX_WAITING
from trimtab_protocol.errors import ErrorCode, StorageError
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import SignedManifest
from trimtab_protocol.messages import TrialReport, parse_report

CHUNK = 1024
CONTENT = bytes(i % 251 for i in range(4 * CHUNK + 10))


def artifact(
    version: int = 1, payload: bytes = CONTENT, **changes: Any
) -> tuple[SignedManifest, bytes]:
    return make_artifact("digits", version, payload, chunk_bytes=CHUNK, **changes)


@pytest.fixture
def rig(tmp_path: Path) -> AgentRig:
    return AgentRig(tmp_path)


def trial_reports(rig: AgentRig) -> dict[str, TrialReport]:
    reports = [
        parse_report(path.read_bytes()) for path in sorted((rig.root / "outbox").glob("*.json"))
    ]
    return {row.trial_id: row for row in reports if isinstance(row, TrialReport)}


def test_a_trial_is_fetched_measured_and_reported_and_changes_nothing(rig: AgentRig) -> None:
    rig.ask(*artifact())
    rig.settle()
    report = trial_reports(rig)["t1"]
    assert report.measurement is not None
    assert str(report.measurement.artifact) == "digits@1"
    assert report.error_code is None
    assert [job.kind for job in rig.children.jobs] == [JobKind.MEASURE]
    assert rig.active() is None
    assert rig.journal.names() == []
    assert rig.tools.bench.owner is None


def test_a_payload_that_is_here_is_measured_without_a_download(rig: AgentRig) -> None:
    rig.ask(*artifact())
    rig.settle()
    rig.delivery.requested.clear()
    rig.ask(*artifact(), trial_id="t2")
    rig.settle()
    assert trial_reports(rig)["t2"].measurement is not None
    assert rig.delivery.requested == []


def test_an_older_version_than_the_committed_one_may_still_be_measured(rig: AgentRig) -> None:
    rig.desire(*artifact(5))
    rig.settle()
    rig.ask(*artifact(4, CONTENT + b"older"))
    rig.settle()
    assert trial_reports(rig)["t1"].measurement is not None


def tampered() -> tuple[SignedManifest, bytes]:
    signed, payload = artifact()
    text = signed.manifest_json.replace('"version":1', '"version":2')
    return signed.model_copy(update={"manifest_json": text}), payload


REFUSED = [
    pytest.param(artifact(private_key=STRANGER_KEY), ErrorCode.TRUST_KEY, id="a stranger's"),
    pytest.param(tampered(), ErrorCode.TRUST_SIGNATURE, id="tampered"),
    pytest.param(
        artifact(device_classes=("orin",)), ErrorCode.REJECTED_DEVICE_CLASS, id="another class"
    ),
]


@pytest.mark.parametrize(("asked", "code"), REFUSED)
def test_what_may_not_run_here_is_refused_before_a_byte_is_fetched(
    rig: AgentRig, asked: tuple[SignedManifest, bytes], code: ErrorCode
) -> None:
    rig.ask(*asked)
    rig.settle()
    report = trial_reports(rig)["t1"]
    assert report.error_code is code
    assert report.detail
    assert rig.delivery.requested == []
    assert rig.children.jobs == []


def test_a_trial_that_expired_while_it_waited_is_not_begun(rig: AgentRig) -> None:
    rig.ask(*artifact())
    rig.clock.pass_time(601)
    rig.settle()
    assert trial_reports(rig)["t1"].error_code is ErrorCode.REJECTED_EXPIRED
    assert rig.delivery.requested == []


def test_trials_are_done_one_after_the_other_in_order(rig: AgentRig) -> None:
    for number in range(3):
        rig.ask(*artifact(number + 1, CONTENT + bytes([number])), trial_id=f"t{number}")
    rig.settle()
    assert [str(job.subject.artifact) for job in rig.children.jobs] == [
        "digits@1",
        "digits@2",
        "digits@3",
    ]
    assert list(trial_reports(rig)) == ["t0", "t1", "t2"]


def test_a_trial_that_is_asked_for_twice_is_measured_once(rig: AgentRig) -> None:
    rig.ask(*artifact())
    rig.ask(*artifact())
    rig.turn()
    rig.ask(*artifact())
    rig.settle()
    assert len(rig.children.jobs) == 1
    assert rig.reports() == [("trial", "t1", None)]


def test_too_many_trials_are_answered_with_busy(rig: AgentRig) -> None:
    for number in range(MAX_WAITING + 1):
        rig.ask(*artifact(), trial_id=f"t{number}")
    rig.ask(*artifact(), trial_id="t0")  # it waits already
    assert {name: row.error_code for name, row in trial_reports(rig).items()} == {
        f"t{MAX_WAITING}": ErrorCode.TRANSIENT_BUSY
    }


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        ("corrupt", ErrorCode.TRUST_CHUNK_DIGEST),
        ("shorten", ErrorCode.TRUST_PAYLOAD_LENGTH),
        ("empty", ErrorCode.TRANSIENT_DELIVERY),
    ],
)
def test_a_fetch_that_fails_is_the_answer_and_the_next_trial_is_begun(
    rig: AgentRig, spoil: str, code: ErrorCode
) -> None:
    getattr(rig.delivery, spoil)(1)
    rig.ask(*artifact())
    rig.settle()
    rig.delivery.heal()
    rig.ask(*artifact(2, CONTENT + b"2"), trial_id="t2")
    rig.settle()
    reports = trial_reports(rig)
    assert reports["t1"].error_code is code
    assert reports["t2"].measurement is not None


def test_a_model_that_crashes_is_the_answer(rig: AgentRig) -> None:
    rig.children.verdicts["digits@1"] = (ErrorCode.MODEL_CRASH, "SIGSEGV")
    rig.ask(*artifact())
    rig.settle()
    report = trial_reports(rig)["t1"]
    assert (report.error_code, report.detail) == (ErrorCode.MODEL_CRASH, "SIGSEGV")
    assert report.measurement is None


def test_a_deployment_goes_first_when_both_wait(rig: AgentRig) -> None:
    rig.ask(*artifact(1, CONTENT + b"trial"))
    rig.desire(*artifact(2))
    rig.settle()
    assert rig.children.jobs[0].kind is JobKind.PROBE
    assert rig.state() is DeploymentState.COMMITTED
    assert trial_reports(rig)["t1"].measurement is not None


def test_a_trial_that_runs_is_finished_before_a_deployment_begins(rig: AgentRig) -> None:
    rig.ask(*artifact(1, CONTENT + b"trial"))
    rig.turn()
    rig.desire(*artifact(2))
    rig.settle()
    assert [job.kind for job in rig.children.jobs] == [
        JobKind.MEASURE,
        JobKind.PROBE,
        JobKind.CHECK,
    ]


def test_the_longest_trial_id_of_the_protocol_is_answered(rig: AgentRig) -> None:
    rig.ask(*artifact(), trial_id="t" * 80)
    rig.settle()
    assert trial_reports(rig)["t" * 80].measurement is not None


def test_an_answer_that_cannot_be_written_does_not_keep_the_bench(tmp_path: Path) -> None:
    is_full = False

    def observe(step: str, path: Path) -> None:
        if is_full and step == "write" and path.parent.name == "outbox":
            raise OSError(28, "No space left on device")

    rig = AgentRig(tmp_path, observe)
    rig.ask(*artifact())
    while not rig.children.started:
        rig.turn()
    is_full = True
    with pytest.raises(StorageError):
        rig.turn()
    is_full = False
    assert rig.tools.bench.owner is None
    rig.desire(*artifact(2))
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED


def test_a_part_that_cannot_be_made_durable_is_the_answer(tmp_path: Path) -> None:
    def observe(step: str, path: Path) -> None:
        if step == "fsync" and path.suffix == ".part":
            raise OSError(5, "Input/output error")

    rig = AgentRig(tmp_path, observe)
    rig.ask(*artifact())
    rig.settle()
    assert trial_reports(rig)["t1"].error_code is ErrorCode.STORAGE_WRITE
    assert rig.tools.bench.owner is None
