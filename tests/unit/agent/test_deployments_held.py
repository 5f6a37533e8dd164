"""An application holds updates: nothing is probed or activated meanwhile, and going back is free."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.agent_rig import MAX_HOLD_S, AgentRig
from support.artifacts import make_artifact
from trimtab_agent.hook_rules import HookPoint, Verdict
from trimtab_protocol.errors import ErrorCode, TransientError
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import SignedManifest

CHUNK = 1024
S = DeploymentState


def artifact(version: int, name: str = "digits") -> tuple[SignedManifest, bytes]:
    payload = bytes((i * version) % 251 for i in range(3 * CHUNK + version))
    return make_artifact(name, version, payload, chunk_bytes=CHUNK)


def work(rig: AgentRig) -> None:
    """Until nothing moves; no time passes."""
    while rig.turn():
        pass


def probes(rig: AgentRig) -> int:
    return sum(str(job.subject.artifact) == "digits@2" for job in rig.children.jobs)


def detail(rig: AgentRig) -> str:
    row = rig.journal.status()["digits"].deployment
    assert row is not None
    return row.detail


@pytest.fixture
def rig(tmp_path: Path) -> AgentRig:
    rig = AgentRig(tmp_path)
    rig.desire(*artifact(1))
    rig.settle()
    return rig


def test_what_is_held_is_delivered_and_waits_staged_until_the_hold_lapses(rig: AgentRig) -> None:
    """[P-5.13]"""
    rig.board.hold("digits", "camera", 300)
    rig.desire(*artifact(2))
    work(rig)
    assert (rig.state(), probes(rig)) == (S.STAGED, 0)
    assert "holds updates of digits" in detail(rig)
    rig.clock.pass_time(299)
    work(rig)
    assert (rig.state(), str(rig.active())) == (S.STAGED, "digits@1")
    rig.clock.pass_time(1)
    work(rig)
    assert (rig.state(), str(rig.active())) == (S.PROBATION, "digits@2")
    assert detail(rig) == ""


def test_a_hold_that_is_released_lets_the_update_go_on_at_once(rig: AgentRig) -> None:
    rig.board.hold("digits", "camera", 300)
    rig.desire(*artifact(2))
    work(rig)
    rig.board.release("digits", "camera")
    work(rig)
    assert rig.state() is S.PROBATION


def test_a_hold_that_came_while_the_candidate_was_probed_keeps_it_from_activation(
    rig: AgentRig,
) -> None:
    rig.desire(*artifact(2))
    rig.run_until(S.PROBING)
    rig.board.hold("digits", "camera", 300)
    work(rig)
    assert (rig.state(), str(rig.active()), probes(rig)) == (S.PROBING, "digits@1", 1)
    assert rig.tools.bench.owner is None, "others may work"
    assert not rig.deployments.has_heavy_work()
    rig.clock.pass_time(300)
    work(rig)
    assert rig.state() is S.PROBATION
    assert probes(rig) == 1, "what was found is still known"


def test_a_hold_that_came_while_a_hook_was_asked_keeps_the_candidate_from_activation(
    rig: AgentRig,
) -> None:
    rig.hooks.says = {HookPoint.BEFORE_ACTIVATE: [Verdict.GO]}
    rig.desire(*artifact(2))
    while not rig.hooks.started:
        rig.turn()
    rig.board.hold("digits", "camera", 300)
    work(rig)
    assert (rig.state(), str(rig.active())) == (S.PROBING, "digits@1")
    rig.clock.pass_time(300)
    work(rig)
    assert rig.state() is S.PROBATION
    assert len(rig.hooks.calls) == 1


def test_a_hook_is_not_asked_before_the_hold_ends(rig: AgentRig) -> None:
    rig.hooks.says = {HookPoint.BEFORE_ACTIVATE: []}
    rig.desire(*artifact(2))
    rig.run_until(S.PROBING)
    rig.board.hold("digits", "camera", 300)
    work(rig)
    assert rig.hooks.calls == []


def test_a_hold_that_is_renewed_for_ever_does_not_keep_a_device_back_for_ever(
    rig: AgentRig,
) -> None:
    rig.desire(*artifact(2))
    began_s = rig.clock.monotonic_s()
    while rig.state() is not S.PROBATION:
        with_pause = rig.clock.monotonic_s() - began_s < MAX_HOLD_S
        if with_pause:
            rig.board.hold("digits", "camera", 600)
        rig.clock.pass_time(60)
        work(rig)
        assert rig.clock.monotonic_s() - began_s <= MAX_HOLD_S
    assert rig.clock.monotonic_s() - began_s == MAX_HOLD_S


def test_a_clock_that_is_set_neither_shortens_nor_lengthens_a_hold(rig: AgentRig) -> None:
    rig.board.hold("digits", "camera", 300)
    rig.desire(*artifact(2))
    for seconds in (1e6, -2e6):
        rig.clock.jump(seconds)
        work(rig)
        assert rig.state() is S.STAGED
    rig.clock.pass_time(300)
    work(rig)
    assert rig.state() is S.PROBATION


def test_a_hold_of_one_name_leaves_others_alone(rig: AgentRig) -> None:
    rig.board.hold("digits", "camera", 300)
    rig.desire(*artifact(2))
    rig.desire(*artifact(1, "faces"), name="faces")
    work(rig)
    assert (rig.state(), rig.state("faces")) == (S.STAGED, S.PROBATION)


def test_a_newer_desire_supersedes_what_is_held(rig: AgentRig) -> None:
    rig.board.hold("digits", "camera", 300)
    rig.desire(*artifact(2))
    work(rig)
    rig.desire(*artifact(3))
    assert ("deployment", "failed", ErrorCode.REJECTED_SUPERSEDED) in rig.reports()
    work(rig)
    rig.clock.pass_time(300)
    work(rig)
    assert str(rig.active()) == "digits@3"


def test_the_beginning_and_the_end_of_waiting_are_news_to_publish(rig: AgentRig) -> None:
    rig.desire(*artifact(2))
    rig.run_until(S.PROBING)
    known = rig.journal.revision
    rig.board.hold("digits", "camera", 300)
    rig.deployments.work()
    assert rig.journal.revision == known + 1
    rig.deployments.work()
    assert rig.journal.revision == known + 1, "said once"
    rig.clock.pass_time(300)
    rig.deployments.work()
    assert rig.journal.revision == known + 2


def test_what_is_active_already_proves_itself_although_updates_are_held(rig: AgentRig) -> None:
    rig.desire(*artifact(2))
    rig.run_until(S.PROBATION)
    rig.board.hold("digits", "camera", 3000)
    assert detail(rig) == ""
    rig.settle()
    assert (rig.state(), str(rig.active())) == (S.COMMITTED, "digits@2")


@pytest.mark.parametrize("how", ["control plane", "model"])
def test_nobody_can_hold_a_way_back(rig: AgentRig, how: str) -> None:
    rig.desire(*artifact(2))
    rig.run_until(S.PROBATION)
    rig.board.hold("digits", "camera", 3000)
    if how == "control plane":
        rig.desire(*artifact(1))
    else:
        rig.children.verdicts["digits@2"] = (ErrorCode.MODEL_GOLDEN, "wrong")
        rig.settle()
    assert rig.board.held_until_s("digits") is not None
    assert str(rig.active()) == "digits@1"


def test_nobody_can_hold_the_return_to_what_was_committed_before(rig: AgentRig) -> None:
    rig.desire(*artifact(2))
    rig.settle()
    rig.board.hold("digits", "camera", 3000)
    rig.desire(*artifact(1))
    work(rig)
    assert (rig.state(), str(rig.active())) == (S.COMMITTED, "digits@1")


def test_who_asks_while_the_link_is_swapped_is_told_to_come_back(rig: AgentRig) -> None:
    """Whoever was told that it holds must not see a swap."""
    rig.desire(*artifact(2))
    rig.run_until(S.PROBING)
    answers: list[str] = []

    def observe(operation: str, path: Path) -> None:
        if path.name == "active" or "records" in str(path):
            try:
                rig.board.hold("digits", "camera", 60)
            except TransientError as error:
                answers.append(error.message)

    rig.tools.disk._observe = observe
    while rig.state() is S.PROBING:
        rig.turn()
    assert str(rig.active()) == "digits@2"
    assert answers
    assert all("being updated" in answer for answer in answers)
    assert rig.board.held_until_s("digits") is None
    assert rig.board.hold("digits", "camera", 60) == 60, "and now it can"
