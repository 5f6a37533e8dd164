"""What hooks say decides, and what they are told is told: over kills, full disks and "later"."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from support.agent_rig import AgentRig
from support.artifacts import make_artifact
from trimtab_agent.hook_desk import GIVE_UP_AFTER_S, RETRY_AFTER_S
from trimtab_agent.hook_rules import HookPoint, Verdict
from trimtab_agent.measure.jobs import JobKind
from trimtab_protocol.errors import ErrorCode, StorageError
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import SignedManifest

CHUNK = 1024
BEFORE, AFTER, BACK = HookPoint.BEFORE_ACTIVATE, HookPoint.AFTER_ACTIVATE, HookPoint.AFTER_ROLLBACK
GO, LATER, ABORT = Verdict.GO, Verdict.LATER, Verdict.ABORT


def artifact(version: int, name: str = "digits") -> tuple[SignedManifest, bytes]:
    payload = bytes((i * version) % 251 for i in range(3 * CHUNK + version))
    return make_artifact(name, version, payload, chunk_bytes=CHUNK)


@pytest.fixture
def rig(tmp_path: Path) -> AgentRig:
    rig = AgentRig(tmp_path)
    rig.desire(*artifact(1))
    rig.settle()
    assert rig.hooks.calls == []
    return rig


def asked(rig: AgentRig) -> list[tuple[HookPoint, str]]:
    return [(call.point, call.artifact) for call in rig.hooks.calls]


def probes(rig: AgentRig) -> int:
    return sum(
        job.kind is JobKind.PROBE and str(job.subject.artifact) == "digits@2"
        for job in rig.children.jobs
    )


def detail(rig: AgentRig) -> str:
    record = rig.journal.newest("digits")
    assert record is not None
    return record.detail


def test_hooks_that_say_go_are_asked_once_each_and_in_order(rig: AgentRig) -> None:
    rig.hooks.says = {BEFORE: [], AFTER: [], BACK: []}
    rig.desire(*artifact(2))
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert asked(rig) == [(BEFORE, "digits@2"), (AFTER, "digits@2")]
    assert all(Path(call.path).is_file() for call in rig.hooks.calls)


def test_a_hook_that_says_no_before_activation_leaves_the_old_model_untouched(
    rig: AgentRig,
) -> None:
    """[P-5.11]"""
    rig.hooks.says = {BEFORE: [ABORT], BACK: []}
    rig.desire(*artifact(2))
    rig.settle()
    assert rig.state() is DeploymentState.FAILED
    assert rig.error_code() is ErrorCode.REJECTED_HOOK
    assert "before-activate said abort" in detail(rig)
    assert asked(rig) == [(BEFORE, "digits@2")]
    assert str(rig.active()) == "digits@1"


def test_a_hook_that_says_no_after_activation_brings_the_old_model_back(rig: AgentRig) -> None:
    rig.hooks.says = {AFTER: [ABORT], BACK: [ABORT]}
    rig.desire(*artifact(2))
    rig.settle()
    assert rig.state() is DeploymentState.ROLLED_BACK
    assert rig.error_code() is ErrorCode.REJECTED_HOOK
    assert asked(rig) == [(AFTER, "digits@2"), (BACK, "digits@1")]
    assert str(rig.active()) == "digits@1"


def test_until_a_hook_has_answered_nothing_is_activated_and_others_have_the_bench(
    rig: AgentRig,
) -> None:
    rig.hooks.says = {BEFORE: [LATER]}
    rig.desire(*artifact(2))
    rig.run_until(DeploymentState.PROBING)
    while not rig.hooks.calls:
        rig.turn()
    rig.turn()
    assert rig.tools.bench.owner is None
    rig.ask(*artifact(9, "other"))
    rig.clock.pass_time(RETRY_AFTER_S - 1)
    while rig.turn():
        pass
    assert rig.reports()[-1][:2] == ("trial", "t1")
    assert rig.state() is DeploymentState.PROBING
    assert len(rig.hooks.calls) == 1
    rig.clock.pass_time(1)
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert asked(rig) == [(BEFORE, "digits@2")] * 2
    assert probes(rig) == 1


@pytest.mark.parametrize(
    ("point", "state"),
    [(BEFORE, DeploymentState.FAILED), (AFTER, DeploymentState.ROLLED_BACK)],
)
def test_a_hook_that_says_later_for_half_an_hour_has_said_no(
    rig: AgentRig, point: HookPoint, state: DeploymentState
) -> None:
    rig.hooks.says = {point: [LATER] * 1000}
    began = rig.clock.now()
    rig.desire(*artifact(2))
    rig.settle(3 * GIVE_UP_AFTER_S)
    assert rig.state() is state
    assert rig.error_code() is ErrorCode.REJECTED_HOOK
    assert GIVE_UP_AFTER_S - RETRY_AFTER_S <= rig.clock.now() - began <= GIVE_UP_AFTER_S + 60
    assert len(rig.hooks.calls) == GIVE_UP_AFTER_S / RETRY_AFTER_S + 1
    assert str(rig.active()) == "digits@1"
    assert probes(rig) == 1


def test_probation_does_not_end_before_the_hook_has_said_go(rig: AgentRig) -> None:
    rig.hooks.says = {AFTER: [LATER, LATER]}
    rig.desire(*artifact(2))
    rig.run_until(DeploymentState.PROBATION)
    rig.clock.pass_time(RETRY_AFTER_S - 1)
    while rig.turn():
        pass
    assert rig.state() is DeploymentState.PROBATION
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert len(rig.hooks.calls) == 3


def test_a_hook_that_was_killed_with_the_agent_runs_again(rig: AgentRig) -> None:
    rig.hooks.says = {AFTER: []}
    rig.desire(*artifact(2))
    rig.run_until(DeploymentState.PROBATION)
    rig.turn()
    rig.start()
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert asked(rig) == [(AFTER, "digits@2")] * 2


def test_a_hook_that_has_answered_is_not_asked_again_after_a_restart(rig: AgentRig) -> None:
    rig.hooks.says = {AFTER: []}
    rig.desire(*artifact(2))
    rig.run_until(DeploymentState.PROBATION)
    while rig.turn():
        pass
    rig.start()
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert asked(rig) == [(AFTER, "digits@2")]


def test_a_rollback_is_told_even_if_the_agent_is_killed_right_after_it(rig: AgentRig) -> None:
    rig.hooks.says = {BACK: []}
    rig.children.verdicts["digits@2:check"] = (ErrorCode.MODEL_LOAD, "made to fail")
    rig.desire(*artifact(2))
    rig.run_until(DeploymentState.ROLLED_BACK)
    rig.start()
    for _ in range(10):
        rig.turn()
    assert asked(rig) == [(BACK, "digits@1")] * 2
    rig.start()
    for _ in range(10):
        rig.turn()
    assert len(rig.hooks.calls) == 2


def test_a_rollback_is_told_even_if_the_next_update_begins_at_once(rig: AgentRig) -> None:
    rig.hooks.says = {BACK: []}
    rig.children.verdicts["digits@2:check"] = (ErrorCode.MODEL_LOAD, "made to fail")
    rig.desire(*artifact(2))
    rig.run_until(DeploymentState.PROBATION)
    rig.desire(*artifact(3))
    rig.settle()
    assert str(rig.active()) == "digits@3"
    assert asked(rig) == [(BACK, "digits@1")]


def test_a_rollback_to_no_model_is_told_without_an_artifact(tmp_path: Path) -> None:
    rig = AgentRig(tmp_path)
    rig.hooks.says = {BACK: []}
    rig.children.verdicts["digits@1:check"] = (ErrorCode.MODEL_LOAD, "made to fail")
    rig.desire(*artifact(1))
    rig.settle()
    assert rig.active() is None
    assert [(call.artifact, call.path) for call in rig.hooks.calls] == [("", "")]


def test_what_is_restored_without_a_probe_is_told_too_and_a_no_changes_nothing(
    rig: AgentRig,
) -> None:
    rig.desire(*artifact(2))
    rig.settle()
    rig.hooks.says = {BEFORE: [], AFTER: [ABORT]}
    rig.desire(*artifact(1))
    rig.settle()
    for _ in range(10):
        rig.turn()
    assert str(rig.active()) == "digits@1"
    assert rig.state() is DeploymentState.COMMITTED
    assert asked(rig) == [(AFTER, "digits@1")]


def test_a_newer_desire_does_not_wait_for_a_hook_that_says_later(rig: AgentRig) -> None:
    rig.hooks.says = {BEFORE: [LATER]}
    rig.desire(*artifact(2))
    rig.run_until(DeploymentState.PROBING)
    for _ in range(5):
        rig.turn()
    assert len(rig.hooks.calls) == 1
    began = rig.clock.now()
    rig.desire(*artifact(3))
    rig.run_until(DeploymentState.PROBATION)
    assert rig.clock.now() - began < RETRY_AFTER_S
    assert asked(rig) == [(BEFORE, "digits@2"), (BEFORE, "digits@3")]


def test_hooks_of_one_model_do_not_keep_another_waiting(rig: AgentRig) -> None:
    rig.hooks.says = {BEFORE: [LATER]}
    rig.desire(*artifact(2))
    rig.run_until(DeploymentState.PROBING)
    for _ in range(5):
        rig.turn()
    rig.desire(*artifact(1, "faces"), name="faces")
    rig.run_until(DeploymentState.PROBATION, "faces")
    assert rig.state() is DeploymentState.PROBING


def test_a_hook_that_cannot_be_started_has_said_no(rig: AgentRig) -> None:
    rig.hooks.says = {BEFORE: []}
    rig.hooks.is_refused = True
    rig.desire(*artifact(2))
    rig.settle()
    assert rig.error_code() is ErrorCode.REJECTED_HOOK
    assert "no process" in detail(rig)


def test_a_full_disk_asks_a_hook_only_once(tmp_path: Path) -> None:
    refused: list[str] = []

    def observe(step: str, path: Path) -> None:
        if step == "write" and any(part in str(path) for part in refused):
            raise OSError(28, "No space left on device")

    rig = AgentRig(tmp_path, observe)
    rig.hooks.says = {BEFORE: [], AFTER: []}
    rig.desire(*artifact(1))
    rig.run_until(DeploymentState.PROBING)
    refused.append("/records/")
    for _ in range(40):
        with contextlib.suppress(StorageError):
            rig.turn()
    assert asked(rig) == [(BEFORE, "digits@1")]
    refused.clear()
    rig.run_until(DeploymentState.PROBATION)
    refused.append("/records/")
    for _ in range(40):
        with contextlib.suppress(StorageError):
            rig.turn()
    refused.clear()
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert asked(rig) == [(BEFORE, "digits@1"), (AFTER, "digits@1")]
