"""What a device does with a desired state, from refusal to commit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.agent_rig import DEVICE_CLASS, PROBATION_S, AgentRig
from support.artifacts import TEST_PRIVATE_KEY, make_artifact
from support.factories import STRANGER_KEY
from trimtab_agent.measure.jobs import JobKind
from trimtab_protocol.budget import Budget, Metric
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import SignedManifest
from trimtab_protocol.messages import Policy

CHUNK = 1024
OLD = bytes(i % 251 for i in range(5 * CHUNK + 10))
NEW = bytes(i % 241 for i in range(7 * CHUNK + 3))


def artifact(version: int, payload: bytes, **changes: Any) -> tuple[SignedManifest, bytes]:
    return make_artifact("digits", version, payload, chunk_bytes=CHUNK, **changes)


@pytest.fixture
def rig(tmp_path: Path) -> AgentRig:
    return AgentRig(tmp_path)


@pytest.fixture
def rig_with_old(rig: AgentRig) -> AgentRig:
    rig.desire(*artifact(1, OLD))
    rig.settle()
    assert str(rig.active()) == "digits@1"
    return rig


def test_a_good_artifact_goes_through_every_state_and_is_committed(rig: AgentRig) -> None:
    rig.desire(*artifact(1, OLD))
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    states = [state for _, state, _ in rig.reports()]
    assert states == [
        "assigned", "fetching", "verifying", "staged", "probing", "activating", "probation", "committed",
    ]  # fmt: skip
    assert str(rig.active()) == "digits@1"


def test_the_stable_path_leads_applications_to_the_active_model(rig_with_old: AgentRig) -> None:
    path = rig_with_old.root / "models" / "digits" / "active" / "model.onnx"
    assert path.read_bytes() == OLD
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.settle()
    assert path.read_bytes() == NEW


def test_the_candidate_is_probed_against_the_incumbent(rig_with_old: AgentRig) -> None:
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.settle()
    probe = [job for job in rig_with_old.children.jobs if job.kind is JobKind.PROBE][-1]
    assert str(probe.subject.artifact) == "digits@2"
    assert probe.incumbent is not None
    assert str(probe.incumbent.artifact) == "digits@1"


def test_a_device_in_probation_has_not_committed_yet(rig: AgentRig) -> None:
    rig.desire(*artifact(1, OLD))
    rig.run_until(DeploymentState.PROBATION)
    rig.clock.pass_time(PROBATION_S - 1)
    rig.turn()
    assert rig.state() is DeploymentState.PROBATION
    rig.clock.pass_time(2)
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED


def test_a_clock_that_jumps_back_does_not_keep_a_device_in_probation(rig: AgentRig) -> None:
    rig.desire(*artifact(1, OLD))
    rig.run_until(DeploymentState.PROBATION)
    rig.clock.pass_time(-100_000)
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED


REFUSALS = [
    pytest.param({"private_key": STRANGER_KEY}, ErrorCode.TRUST_KEY, id="a key nobody trusts"),
    pytest.param(
        {"device_classes": ("another-board",)}, ErrorCode.REJECTED_DEVICE_CLASS, id="another class"
    ),
]


@pytest.mark.parametrize(("changes", "code"), REFUSALS)
def test_what_may_not_run_here_is_refused_before_a_byte_is_fetched(
    rig_with_old: AgentRig, changes: dict[str, object], code: ErrorCode
) -> None:
    rig_with_old.delivery.requested.clear()
    rig_with_old.desire(*artifact(2, NEW, **changes))
    rig_with_old.settle()
    assert rig_with_old.state() is DeploymentState.FAILED
    assert rig_with_old.error_code() is code
    assert rig_with_old.delivery.requested == []
    assert str(rig_with_old.active()) == "digits@1"
    assert rig_with_old.reports()[-1] == ("deployment", "failed", code)


def test_a_signature_that_does_not_hold_is_refused(rig_with_old: AgentRig) -> None:
    signed, payload = artifact(2, NEW)
    tampered = signed.model_copy(
        update={"manifest_json": signed.manifest_json.replace('"version":2', '"version":3')}
    )
    rig_with_old.desire(tampered, payload)
    rig_with_old.settle()
    assert rig_with_old.error_code() is ErrorCode.TRUST_SIGNATURE
    assert str(rig_with_old.active()) == "digits@1"


def test_an_older_version_than_the_committed_one_is_refused(rig: AgentRig) -> None:
    rig.desire(*artifact(5, OLD))
    rig.settle()
    rig.desire(*artifact(4, NEW))
    rig.settle()
    assert rig.error_code() is ErrorCode.TRUST_VERSION
    assert str(rig.active()) == "digits@5"


def test_a_manifest_sent_under_another_name_is_refused(rig: AgentRig) -> None:
    rig.desire(*artifact(1, OLD), name="letters")
    rig.settle()
    assert rig.error_code("letters") is ErrorCode.PROTOCOL_MALFORMED
    assert rig.active("letters") is None


def test_a_chunk_whose_byte_changed_is_asked_for_again_and_then_refused(
    rig_with_old: AgentRig,
) -> None:
    rig_with_old.delivery.corrupt(3)
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.settle()
    assert rig_with_old.error_code() is ErrorCode.TRUST_CHUNK_DIGEST
    assert rig_with_old.delivery.requested.count(3) >= 3
    assert str(rig_with_old.active()) == "digits@1"


def test_a_chunk_that_was_corrupt_once_does_no_harm(rig: AgentRig) -> None:
    rig.delivery.corrupt(2)
    rig.desire(*artifact(1, OLD))
    rig.run_until(DeploymentState.FETCHING)
    for _ in range(3):
        rig.turn()
    rig.delivery.heal()
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED


def test_a_file_that_is_shorter_than_its_manifest_says_is_refused(rig_with_old: AgentRig) -> None:
    rig_with_old.delivery.shorten(7)
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.settle()
    assert rig_with_old.error_code() is ErrorCode.TRUST_PAYLOAD_LENGTH
    assert str(rig_with_old.active()) == "digits@1"


def test_a_payload_that_the_control_plane_lost_is_a_delivery_failure(rig: AgentRig) -> None:
    rig.delivery.empty(0)
    rig.desire(*artifact(1, OLD))
    rig.settle()
    assert rig.error_code() is ErrorCode.TRANSIENT_DELIVERY
    assert rig.active() is None


def test_a_lost_chunk_is_asked_for_again(rig: AgentRig) -> None:
    rig.delivery.lose_once(1)
    rig.desire(*artifact(1, OLD))
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert rig.delivery.requested.count(1) == 2


def test_a_delivery_that_stands_still_ends_with_its_reason(rig: AgentRig) -> None:
    rig.delivery.is_silent = True
    rig.desire(*artifact(1, OLD))
    rig.settle()
    assert rig.error_code() is ErrorCode.TRANSIENT_DELIVERY


def test_without_room_on_the_disk_nothing_is_fetched(rig: AgentRig) -> None:
    rig.free_disk_bytes = 100
    rig.desire(*artifact(1, OLD))
    rig.settle()
    assert rig.error_code() is ErrorCode.REJECTED_DISK
    assert rig.delivery.requested == []


@pytest.mark.parametrize(
    "code",
    [ErrorCode.MODEL_GOLDEN, ErrorCode.MODEL_LOAD, ErrorCode.MODEL_CRASH, ErrorCode.MODEL_TIMEOUT],
)
def test_a_model_that_fails_in_its_probe_never_becomes_active(
    rig_with_old: AgentRig, code: ErrorCode
) -> None:
    rig_with_old.children.verdicts["digits@2"] = (code, "as the child said")
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.settle()
    assert rig_with_old.state() is DeploymentState.FAILED
    assert rig_with_old.error_code() is code
    assert str(rig_with_old.active()) == "digits@1"


def test_a_candidate_that_is_surely_slower_than_the_incumbent_is_refused(
    rig_with_old: AgentRig,
) -> None:
    rig_with_old.children.p90_ratio = (1.5, 1.4, 1.6)
    rig_with_old.desire(*artifact(2, NEW), policy=Policy(max_p90_ratio=1.1))
    rig_with_old.settle()
    assert rig_with_old.error_code() is ErrorCode.REJECTED_SLOWER
    assert str(rig_with_old.active()) == "digits@1"


def test_a_doubt_about_speed_is_left_to_the_gate(rig_with_old: AgentRig) -> None:
    rig_with_old.children.p90_ratio = (1.12, 1.05, 1.2)
    rig_with_old.desire(*artifact(2, NEW), policy=Policy(max_p90_ratio=1.1, probation_s=1.0))
    rig_with_old.settle()
    assert rig_with_old.state() is DeploymentState.COMMITTED


def test_a_candidate_over_its_budget_is_refused(rig_with_old: AgentRig) -> None:
    budget = Budget(limits={Metric.P90_MS: 5.0})
    rig_with_old.desire(*artifact(2, NEW, budgets={DEVICE_CLASS: budget}))
    rig_with_old.settle()
    assert rig_with_old.error_code() is ErrorCode.REJECTED_BUDGET
    assert str(rig_with_old.active()) == "digits@1"


def test_a_model_that_fails_after_activation_gives_way_to_the_last_good_one(
    rig_with_old: AgentRig,
) -> None:
    rig_with_old.children.verdicts["digits@2:check"] = (ErrorCode.MODEL_CRASH, "SIGSEGV")
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.run_until(DeploymentState.PROBATION)
    assert str(rig_with_old.active()) == "digits@2"
    rig_with_old.delivery.requested.clear()
    rig_with_old.settle()
    assert rig_with_old.state() is DeploymentState.ROLLED_BACK
    assert rig_with_old.error_code() is ErrorCode.MODEL_CRASH
    assert str(rig_with_old.active()) == "digits@1"
    assert rig_with_old.delivery.requested == []


def test_a_first_model_that_fails_after_activation_leaves_no_model(rig: AgentRig) -> None:
    rig.children.verdicts["digits@1:check"] = (ErrorCode.MODEL_CRASH, "SIGSEGV")
    rig.desire(*artifact(1, OLD))
    rig.settle()
    assert rig.state() is DeploymentState.ROLLED_BACK
    assert rig.active() is None


def test_three_starts_in_probation_are_a_crash_loop(rig_with_old: AgentRig) -> None:
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.run_until(DeploymentState.PROBATION)
    for _ in range(3):
        rig_with_old.start()
    assert rig_with_old.state() is DeploymentState.ROLLED_BACK
    assert rig_with_old.error_code() is ErrorCode.MODEL_CRASH
    assert str(rig_with_old.active()) == "digits@1"


def test_three_starts_while_probing_end_the_deployment(rig_with_old: AgentRig) -> None:
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.run_until(DeploymentState.PROBING)
    for _ in range(3):
        rig_with_old.start()
    assert rig_with_old.state() is DeploymentState.FAILED
    assert str(rig_with_old.active()) == "digits@1"


def test_a_policy_says_how_many_starts_are_a_crash_loop(rig_with_old: AgentRig) -> None:
    rig_with_old.desire(*artifact(2, NEW), policy=Policy(max_starts=5))
    rig_with_old.run_until(DeploymentState.PROBATION)
    for _ in range(4):
        rig_with_old.start()
    assert rig_with_old.state() is DeploymentState.PROBATION
    rig_with_old.start()
    assert rig_with_old.state() is DeploymentState.ROLLED_BACK


def test_a_newer_desire_supersedes_one_that_is_still_fetching(rig_with_old: AgentRig) -> None:
    rig_with_old.delivery.is_silent = True
    first = rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.run_until(DeploymentState.FETCHING)
    rig_with_old.delivery.is_silent = False
    rig_with_old.desire(*artifact(3, NEW + b"more"))
    rig_with_old.settle()
    assert str(rig_with_old.active()) == "digits@3"
    assert ("deployment", "failed", ErrorCode.REJECTED_SUPERSEDED) in rig_with_old.reports()
    assert any(first in path.name for path in (rig_with_old.root / "outbox").iterdir())


def test_a_newer_desire_kills_the_child_that_probes_the_older(rig_with_old: AgentRig) -> None:
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.run_until(DeploymentState.PROBING)
    rig_with_old.desire(*artifact(3, NEW + b"more"))
    assert rig_with_old.children.killed_count == 1
    rig_with_old.settle()
    assert str(rig_with_old.active()) == "digits@3"


def test_a_newer_desire_waits_while_the_older_is_in_probation(rig_with_old: AgentRig) -> None:
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.run_until(DeploymentState.PROBATION)
    rig_with_old.desire(*artifact(3, NEW + b"more"))
    assert rig_with_old.state() is DeploymentState.PROBATION
    rig_with_old.settle()
    assert str(rig_with_old.active()) == "digits@3"


def test_going_back_to_the_last_good_one_interrupts_probation_without_a_download(
    rig_with_old: AgentRig,
) -> None:
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.run_until(DeploymentState.PROBATION)
    rig_with_old.delivery.requested.clear()
    rig_with_old.desire(*artifact(1, OLD))
    assert str(rig_with_old.active()) == "digits@1"
    rig_with_old.settle()
    assert rig_with_old.state() is DeploymentState.COMMITTED
    assert rig_with_old.delivery.requested == []


def test_after_a_commit_the_control_plane_can_still_go_back_without_a_download(
    rig_with_old: AgentRig,
) -> None:
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.settle()
    rig_with_old.delivery.requested.clear()
    rig_with_old.desire(*artifact(1, OLD))
    rig_with_old.settle()
    assert str(rig_with_old.active()) == "digits@1"
    assert rig_with_old.state() is DeploymentState.COMMITTED
    assert rig_with_old.delivery.requested == []


def test_a_desire_for_what_is_active_is_adopted_at_once(rig_with_old: AgentRig) -> None:
    jobs = len(rig_with_old.children.jobs)
    new_id = rig_with_old.desire(*artifact(1, OLD))
    record = rig_with_old.journal.deployment("digits")
    assert record.deployment_id == new_id
    assert record.state is DeploymentState.COMMITTED
    assert len(rig_with_old.children.jobs) == jobs


def test_a_stranger_cannot_move_a_device_by_naming_what_it_has_already(
    rig_with_old: AgentRig,
) -> None:
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.settle()
    rig_with_old.desire(*artifact(1, OLD, private_key=STRANGER_KEY))
    rig_with_old.settle()
    assert rig_with_old.error_code() is ErrorCode.TRUST_KEY
    assert str(rig_with_old.active()) == "digits@2"


def test_the_same_payload_under_a_new_version_is_a_deployment_without_a_download(
    rig_with_old: AgentRig,
) -> None:
    rig_with_old.delivery.requested.clear()
    rig_with_old.desire(*artifact(2, OLD))
    rig_with_old.settle()
    assert str(rig_with_old.active()) == "digits@2"
    assert rig_with_old.delivery.requested == []


def test_the_same_desire_twice_changes_nothing(rig_with_old: AgentRig) -> None:
    rig_with_old.desire(*artifact(2, NEW), deployment_id="same")
    rig_with_old.settle()
    reports = rig_with_old.reports()
    rig_with_old.desire(*artifact(2, NEW), deployment_id="same")
    rig_with_old.settle()
    assert rig_with_old.reports() == reports


def test_a_failed_deployment_is_not_tried_again_by_itself(rig_with_old: AgentRig) -> None:
    rig_with_old.children.verdicts["digits@2"] = (ErrorCode.MODEL_GOLDEN, "off")
    signed, payload = artifact(2, NEW)
    rig_with_old.desire(signed, payload, deployment_id="once")
    rig_with_old.settle()
    jobs = len(rig_with_old.children.jobs)
    rig_with_old.start()
    rig_with_old.desire(signed, payload, deployment_id="once")
    rig_with_old.settle()
    assert len(rig_with_old.children.jobs) == jobs


@pytest.mark.parametrize(
    ("state", "end"),
    [
        (DeploymentState.FETCHING, DeploymentState.FAILED),
        (DeploymentState.PROBING, DeploymentState.FAILED),
        (DeploymentState.PROBATION, DeploymentState.ROLLED_BACK),
    ],
)
def test_what_is_no_longer_desired_ends_and_the_last_good_one_stays(
    rig_with_old: AgentRig, state: DeploymentState, end: DeploymentState
) -> None:
    """[P-4.9]."""
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.run_until(state)
    rig_with_old.desire_nothing()
    rig_with_old.settle()
    assert rig_with_old.state() is end
    assert rig_with_old.error_code() is ErrorCode.REJECTED_SUPERSEDED
    assert str(rig_with_old.active()) == "digits@1"


def test_a_committed_model_stays_when_it_is_no_longer_mentioned(rig_with_old: AgentRig) -> None:
    rig_with_old.desire_nothing()
    rig_with_old.settle()
    assert rig_with_old.state() is DeploymentState.COMMITTED
    assert str(rig_with_old.active()) == "digits@1"


def test_two_models_on_one_device_do_not_touch_each_other(rig_with_old: AgentRig) -> None:
    signed, payload = make_artifact("letters", 1, NEW, chunk_bytes=CHUNK)
    rig_with_old.desire(signed, payload, name="letters")
    rig_with_old.settle()
    assert str(rig_with_old.active("letters")) == "letters@1"
    assert str(rig_with_old.active("digits")) == "digits@1"


def test_a_restart_in_mid_fetch_asks_only_for_what_is_lacking(rig: AgentRig) -> None:
    signed, payload = artifact(1, OLD * 4)
    rig.desire(signed, payload)
    rig.run_until(DeploymentState.FETCHING)
    for _ in range(9):
        rig.turn()
    rig.delivery.requested.clear()
    rig.start()
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert not set(rig.delivery.requested) & set(range(8))


def test_a_damaged_active_slot_gives_way_to_the_last_good_one_at_the_next_start(
    rig_with_old: AgentRig,
) -> None:
    rig_with_old.desire(*artifact(2, NEW))
    rig_with_old.settle()
    model = rig_with_old.root / "models" / "digits" / "active" / "model.onnx"
    model.chmod(0o644)
    model.write_bytes(NEW[:-1])
    rig_with_old.start()
    assert str(rig_with_old.active()) == "digits@1"


def test_old_slots_are_removed_after_a_commit_and_linked_ones_stay(rig: AgentRig) -> None:
    for version in (1, 2, 3, 4):
        rig.desire(*artifact(version, OLD + bytes([version])))
        rig.settle()
    kept = sorted(path.name.split("-")[0] for path in (rig.root / "slots" / "digits").iterdir())
    assert kept == ["3", "4"]


def test_the_same_owner_signs_for_every_class(rig: AgentRig) -> None:
    signed, payload = artifact(
        1, OLD, device_classes=(DEVICE_CLASS, "other"), private_key=TEST_PRIVATE_KEY
    )
    rig.desire(signed, payload)
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED


def test_a_payload_on_its_way_is_not_collected_by_the_commit_of_another(tmp_path: Path) -> None:
    rig = AgentRig(tmp_path)
    rig.max_payload_cache_bytes = 0
    rig.start()
    rig.desire(*artifact(1, OLD))
    rig.run_until(DeploymentState.PROBATION)
    signed, payload = make_artifact("letters", 1, NEW, chunk_bytes=CHUNK)
    rig.delivery.is_silent = True
    rig.desire(signed, payload, name="letters")
    rig.run_until(DeploymentState.FETCHING, "letters")
    assert rig.journal.in_flight_sha256() >= {rig.journal.deployment("letters").artifact.sha256}  # type: ignore[union-attr]
    rig.tools.store.collect_payloads(0, rig.journal.in_flight_sha256())
    rig.delivery.is_silent = False
    rig.settle()
    assert rig.state("letters") is DeploymentState.COMMITTED


@pytest.mark.parametrize(
    ("own_bytes", "asked_bytes", "given_bytes"),
    [(0, None, 0), (0, 2**21, 2**21), (2**22, None, 2**22), (2**22, 2**21, 2**21), (2**21, 2**22, 2**21)],
)  # fmt: skip
def test_a_policy_tightens_the_bounds_of_a_probe_and_never_loosens_them(
    rig: AgentRig, own_bytes: int, asked_bytes: int | None, given_bytes: int
) -> None:
    """[P-5.12]"""
    own = rig.tools.settings.model_copy(update={"max_memory_bytes": own_bytes})
    assert own.within(asked_bytes).max_memory_bytes == given_bytes


def test_the_bounds_of_a_policy_reach_the_probing_child_and_no_other(rig: AgentRig) -> None:
    policy = Policy(probation_s=PROBATION_S, max_probe_s=12.5, max_probe_bytes=2**24)
    rig.desire(*artifact(1, OLD), policy=policy)
    rig.settle()
    rows = {job.kind: (job.max_job_s, job.settings.max_memory_bytes) for job in rig.children.jobs}
    assert rows == {JobKind.PROBE: (12.5, 2**24), JobKind.CHECK: (None, 0)}
