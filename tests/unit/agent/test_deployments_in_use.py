"""Probation in use: a new model that its applications find bad gives way to the last good one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from support.agent_rig import PROBATION_S, AgentRig, PowerCut
from support.artifacts import make_artifact
from trimtab_agent.hook_rules import HookPoint, Verdict
from trimtab_agent.local.histogram import bucket_of
from trimtab_agent.measure.jobs import JobKind
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import SignedManifest
from trimtab_protocol.messages import Policy

CHUNK = 1024
TIMEOUT_S = 5.0
S = DeploymentState
POLICY = Policy(probation_s=PROBATION_S, heartbeat_timeout_s=TIMEOUT_S, max_app_p90_ratio=1.5)


def artifact(version: int) -> tuple[SignedManifest, bytes]:
    payload = bytes((i * version) % 251 for i in range(3 * CHUNK + version))
    return make_artifact("digits", version, payload, chunk_bytes=CHUNK)


@dataclass
class Application:
    """A process that uses the model `digits`; it follows the active link when it is told to."""

    rig: AgentRig
    name: str = "camera"
    sha256: str = ""

    def load(self) -> None:
        active = self.rig.active()
        assert active is not None
        self.sha256 = active.sha256
        self.rig.board.started("digits", self.sha256, self.name)

    def beat(self) -> None:
        self.rig.board.heartbeat("digits", self.sha256, self.name)

    def infer(self, latency_ms: float, count: int = 200) -> None:
        self.rig.board.add_latencies(
            "digits", self.sha256, self.name, {bucket_of(latency_ms): count}
        )


@pytest.fixture
def rig(tmp_path: Path) -> AgentRig:
    rig = AgentRig(tmp_path)
    rig.desire(*artifact(1))
    rig.settle()
    return rig


@pytest.fixture
def camera(rig: AgentRig) -> Application:
    camera = Application(rig)
    camera.load()
    camera.beat()
    return camera


def work(rig: AgentRig, seconds: float = 0) -> None:
    """Until nothing moves, in steps of a second."""
    while rig.turn():
        pass
    for _ in range(round(seconds)):
        rig.clock.pass_time(1)
        while rig.turn():
            pass


def update(rig: AgentRig, policy: Policy = POLICY) -> None:
    rig.desire(*artifact(2), policy=policy)
    rig.run_until(S.PROBATION)
    assert str(rig.active()) == "digits@2"


def stands(rig: AgentRig) -> tuple[DeploymentState | None, str, ErrorCode | None]:
    return rig.state(), str(rig.active()), rig.error_code()


def test_an_application_that_never_comes_to_the_new_model_brings_the_old_one_back(
    rig: AgentRig, camera: Application
) -> None:
    """[P-5.14] At once, and without a download; an application that beats on with the old model
    has not shown that the new one works.
    """
    update(rig)
    requested = len(rig.delivery.requested)
    work(rig, TIMEOUT_S - 1)
    camera.beat()
    assert rig.state() is S.PROBATION
    work(rig, 1)
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_HEARTBEAT)
    assert ("deployment", "rolled_back", ErrorCode.MODEL_HEARTBEAT) in rig.reports()
    assert len(rig.delivery.requested) == requested


def test_an_application_that_falls_silent_in_probation_brings_the_old_model_back(
    rig: AgentRig, camera: Application
) -> None:
    update(rig)
    camera.load()
    for _ in range(3):
        camera.beat()
        work(rig, 1)
    work(rig, TIMEOUT_S - 2)
    assert rig.state() is S.PROBATION
    work(rig, 1)
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_HEARTBEAT)


def test_an_application_that_restarts_to_load_the_new_model_is_no_alarm(
    rig: AgentRig, camera: Application
) -> None:
    update(rig)
    work(rig, TIMEOUT_S - 1)
    camera.load()
    while rig.state() is S.PROBATION:
        camera.beat()
        work(rig, 1)
    assert stands(rig) == (S.COMMITTED, "digits@2", None)


def test_without_an_application_only_the_old_checks_count(rig: AgentRig) -> None:
    update(rig)
    rig.settle()
    assert stands(rig) == (S.COMMITTED, "digits@2", None)


def test_an_application_that_had_been_silent_before_is_not_waited_for(
    rig: AgentRig, camera: Application
) -> None:
    rig.clock.pass_time(TIMEOUT_S)
    update(rig)
    rig.settle()
    assert stands(rig) == (S.COMMITTED, "digits@2", None)


def test_a_policy_that_does_not_look_at_heartbeats_waits_for_nobody(
    rig: AgentRig, camera: Application
) -> None:
    update(rig, Policy(probation_s=PROBATION_S))
    rig.settle()
    assert stands(rig) == (S.COMMITTED, "digits@2", None)


def test_an_application_that_came_only_after_the_activation_is_watched_from_then_on(
    rig: AgentRig,
) -> None:
    update(rig)
    late = Application(rig, "lamp")
    late.load()
    late.beat()
    work(rig, TIMEOUT_S)
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_HEARTBEAT)


def test_each_application_is_watched_by_itself(rig: AgentRig, camera: Application) -> None:
    lamp = Application(rig, "lamp")
    lamp.load()
    lamp.beat()
    update(rig)
    camera.load()
    for _ in range(round(TIMEOUT_S)):
        camera.beat()
        work(rig, 1)
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_HEARTBEAT)
    record = rig.journal.newest("digits")
    assert record is not None
    assert record.detail.startswith("lamp sent no heartbeat")


def test_probation_waits_for_an_application_that_may_still_come(
    rig: AgentRig, camera: Application
) -> None:
    update(rig, POLICY.model_copy(update={"probation_s": 1.0}))
    work(rig, TIMEOUT_S - 1)
    assert rig.state() is S.PROBATION
    camera.load()
    camera.beat()
    work(rig)
    assert stands(rig) == (S.COMMITTED, "digits@2", None)


@pytest.mark.parametrize("jump_s", [1e6, -1e6])
def test_a_clock_that_is_set_is_neither_a_silence_nor_hides_one(
    rig: AgentRig, camera: Application, jump_s: float
) -> None:
    update(rig)
    work(rig, 1)
    rig.clock.jump(jump_s)
    work(rig, TIMEOUT_S - 2)
    assert rig.state() is S.PROBATION
    work(rig, 1)
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_HEARTBEAT)


@pytest.mark.parametrize("is_back", [True, False])
def test_after_a_restart_of_the_agent_an_application_has_its_whole_time_again(
    rig: AgentRig, camera: Application, is_back: bool
) -> None:
    update(rig)
    work(rig, TIMEOUT_S - 1)
    rig.start()
    work(rig, TIMEOUT_S - 1)
    assert rig.state() is S.PROBATION, "nobody could be heard while the agent was away"
    if is_back:
        camera.load()
        camera.beat()
    work(rig, 1)
    if is_back:
        assert stands(rig)[1:] == ("digits@2", None)
    else:
        assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_HEARTBEAT)


def test_who_came_only_after_the_activation_is_known_after_a_restart_of_the_agent(
    rig: AgentRig,
) -> None:
    update(rig, POLICY.model_copy(update={"probation_s": 1000.0}))
    late = Application(rig, "lamp")
    late.load()
    late.beat()
    work(rig)
    rig.start()
    work(rig, TIMEOUT_S)
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_HEARTBEAT)


def test_a_silence_that_ends_while_the_file_is_checked_is_not_committed(
    rig: AgentRig, camera: Application
) -> None:
    update(rig)
    camera.load()
    while not rig.children.started:  # the check at the end of probation
        camera.beat()
        rig.clock.pass_time(1)
        rig.deployments.work()
    assert rig.children.started[0].kind is JobKind.CHECK
    rig.clock.pass_time(TIMEOUT_S)
    rig.tools.bench.on_child_finished(rig.children.finish())
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_HEARTBEAT)


def test_going_back_waits_neither_for_a_running_check_nor_for_a_hook(
    rig: AgentRig, camera: Application
) -> None:
    rig.hooks.says = {HookPoint.AFTER_ACTIVATE: [Verdict.LATER] * 9}
    update(rig)
    work(rig, TIMEOUT_S)
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_HEARTBEAT)


def test_going_back_kills_a_running_check_and_frees_the_bench(
    rig: AgentRig, camera: Application
) -> None:
    update(rig)
    camera.load()
    while not rig.children.started:
        camera.beat()
        rig.clock.pass_time(1)
        rig.deployments.work()
    rig.clock.pass_time(TIMEOUT_S)
    rig.deployments.work()
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_HEARTBEAT)
    assert (rig.children.killed_count, rig.tools.bench.owner) == (1, None)


def test_an_application_that_finds_the_new_model_too_slow_brings_the_old_one_back(
    rig: AgentRig, camera: Application
) -> None:
    """[P-5.15]"""
    camera.infer(10.0)
    update(rig)
    camera.load()
    camera.beat()
    camera.infer(18.0)
    work(rig)
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_SLOW_IN_USE)
    assert ("deployment", "rolled_back", ErrorCode.MODEL_SLOW_IN_USE) in rig.reports()


@pytest.mark.parametrize(("latency_ms", "count"), [(15.0, 200), (18.0, 99), (5.0, 10_000)])
def test_what_is_not_surely_too_slow_stays(
    rig: AgentRig, camera: Application, latency_ms: float, count: int
) -> None:
    camera.infer(10.0)
    update(rig)
    camera.load()
    camera.infer(latency_ms, count)
    while rig.state() is S.PROBATION:
        camera.beat()
        work(rig, 1)
    assert stands(rig) == (S.COMMITTED, "digits@2", None)


def test_what_the_incumbent_took_is_known_after_a_restart_of_the_agent(
    rig: AgentRig, camera: Application
) -> None:
    camera.infer(10.0)
    update(rig)
    rig.start()
    camera.load()
    camera.infer(18.0)
    work(rig)
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_SLOW_IN_USE)


def test_a_model_that_is_tried_again_is_not_judged_by_what_was_said_the_first_time(
    rig: AgentRig, camera: Application
) -> None:
    camera.infer(10.0)
    update(rig)
    camera.load()
    camera.infer(18.0)
    work(rig)
    assert rig.state() is S.ROLLED_BACK
    camera.load()
    camera.beat()
    update(rig)
    camera.load()
    camera.infer(9.0)
    work(rig)
    assert stands(rig) == (S.PROBATION, "digits@2", None)


def test_an_application_in_a_crash_loop_brings_the_old_model_back(rig: AgentRig) -> None:
    """[P-5.9]"""
    update(rig, Policy(probation_s=PROBATION_S))
    camera = Application(rig)
    for _ in range(3):
        camera.load()
        work(rig)
    assert rig.state() is S.PROBATION
    camera.load()
    work(rig)
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_CRASH)


@pytest.mark.parametrize("where", ["digits.json", "models/digits", "digits"])
def test_a_disk_that_refuses_the_way_back_is_tried_again_and_keeps_no_other_name_waiting(
    rig: AgentRig, camera: Application, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    camera.infer(10.0)
    update(rig)
    camera.load()
    camera.infer(18.0)

    def refuse(_step: str, path: Path) -> None:
        if where in str(path):
            raise OSError(28, "No space left on device")

    rig.tools.disk._observe = refuse
    signed, payload = make_artifact("faces", 1, bytes(range(200)), chunk_bytes=CHUNK)
    rig.desire(signed, payload, name="faces")
    work(rig, 3)
    assert rig.state() is S.PROBATION
    assert rig.state("faces") is S.PROBATION
    assert sorted(set(caplog.messages)) == sorted(caplog.messages), "said once"
    rig.tools.disk._observe = lambda _step, _path: None
    work(rig)
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_SLOW_IN_USE)


def test_a_reason_to_go_back_outlives_a_restart_that_would_be_a_crash_loop(
    rig: AgentRig, camera: Application
) -> None:
    camera.infer(10.0)
    update(rig, POLICY.model_copy(update={"max_starts": 1}))
    camera.load()
    camera.infer(18.0)

    def cut(step: str, path: Path) -> None:
        if (step, path.name) == ("symlink", ".active.new"):
            raise PowerCut

    rig.tools.disk._observe = cut
    with pytest.raises(PowerCut):
        rig.turn()
    rig.start()
    work(rig)
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_SLOW_IN_USE)


def test_a_disk_that_refuses_to_note_who_is_watched_fails_nothing(
    rig: AgentRig, camera: Application
) -> None:
    update(rig)
    camera.load()
    lamp = Application(rig, "lamp")
    lamp.load()

    def refuse(_step: str, path: Path) -> None:
        if "records" in str(path):
            raise OSError(28, "No space left on device")

    rig.tools.disk._observe = refuse
    lamp.beat()
    camera.beat()
    work(rig)
    assert stands(rig) == (S.PROBATION, "digits@2", None)
    rig.tools.disk._observe = lambda _step, _path: None
    work(rig, TIMEOUT_S)
    assert stands(rig) == (S.ROLLED_BACK, "digits@1", ErrorCode.MODEL_HEARTBEAT)
