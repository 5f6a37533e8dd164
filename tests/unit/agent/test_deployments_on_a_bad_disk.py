"""A disk that refuses or damages: what is active stays active, and nothing is stuck afterwards."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from support.agent_rig import AgentRig
from support.artifacts import make_artifact
from trimtab_agent.measure.jobs import Job, JobKind
from trimtab_protocol.errors import ErrorCode, StorageError
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import SignedManifest
from trimtab_protocol.messages import Policy

CHUNK = 1024
OLD = bytes(i % 251 for i in range(3 * CHUNK + 10))
NEW = bytes(i % 241 for i in range(4 * CHUNK + 3))


def artifact(version: int, payload: bytes) -> tuple[SignedManifest, bytes]:
    return make_artifact("digits", version, payload, chunk_bytes=CHUNK)


class FullDisk:
    """Refuses the steps whose path ends in one of the names, until there is room again."""

    def __init__(self) -> None:
        self.refused: tuple[tuple[str, str], ...] = ()
        self.refusals = 0
        self._swaps: list[str] | None = None

    def count_swaps_and_fill_up_at_the_first(self) -> list[str]:
        self._swaps = []
        return self._swaps

    def __call__(self, step: str, path: Path) -> None:
        if self._swaps is not None and (step, path.name) == ("rename", "active"):
            self._swaps.append(path.name)
            self.refused = (("write", "/records/"),)
        for refused_step, part in self.refused:
            if step == refused_step and part in str(path):
                self.refusals += 1
                raise OSError(28, "No space left on device")


@pytest.fixture
def disk() -> FullDisk:
    return FullDisk()


@pytest.fixture
def rig(tmp_path: Path, disk: FullDisk) -> AgentRig:
    rig = AgentRig(tmp_path, disk)
    rig.desire(*artifact(1, OLD))
    rig.settle()
    assert str(rig.active()) == "digits@1"
    return rig


def turn_through(rig: AgentRig, turns: int = 30) -> None:
    """The loop of the daemon: a refused step is logged, and the loop goes on."""
    for _ in range(turns):
        with contextlib.suppress(StorageError):
            if not rig.turn():
                rig.clock.pass_time(1.0)
                rig.tools.bench.on_tick(rig.clock.now())


@pytest.mark.parametrize("link", ["last_good", "active"])
def test_a_swap_that_the_disk_refuses_leaves_the_active_model_active(
    rig: AgentRig, disk: FullDisk, link: str
) -> None:
    disk.refused = (("symlink", f".{link}.new"),)
    rig.desire(*artifact(2, NEW))
    turn_through(rig)
    assert disk.refusals
    assert rig.state() is DeploymentState.ROLLED_BACK
    assert rig.error_code() is ErrorCode.STORAGE_WRITE
    assert str(rig.active()) == "digits@1"


def test_a_swap_that_the_disk_refuses_does_not_go_back_to_an_older_model(
    rig: AgentRig, disk: FullDisk
) -> None:
    rig.desire(*artifact(2, NEW))
    rig.settle()
    disk.refused = (("symlink", ".last_good.new"),)
    rig.desire(*artifact(3, NEW + b"more"))
    turn_through(rig)
    assert rig.state() is DeploymentState.ROLLED_BACK
    assert str(rig.active()) == "digits@2"


@pytest.mark.parametrize("state", [DeploymentState.FETCHING, DeploymentState.PROBING])
def test_a_journal_that_cannot_be_written_is_written_when_there_is_room_again(
    rig: AgentRig, disk: FullDisk, state: DeploymentState
) -> None:
    rig.desire(*artifact(2, NEW))
    rig.run_until(state)
    disk.refused = (("write", "/records/"),)
    turn_through(rig)
    assert disk.refusals
    assert str(rig.active()) == "digits@1"
    disk.refused = ()
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert str(rig.active()) == "digits@2"


@pytest.mark.parametrize("is_good", [True, False])
def test_a_probe_is_not_repeated_because_its_verdict_cannot_be_written(
    rig: AgentRig, disk: FullDisk, is_good: bool
) -> None:
    if not is_good:
        rig.children.verdicts["digits@2:probe"] = (ErrorCode.MODEL_GOLDEN, "other outputs")
    rig.desire(*artifact(2, NEW))
    rig.run_until(DeploymentState.PROBING)
    disk.refused = (("write", "/records/"),)
    turn_through(rig, 60)
    assert disk.refusals > 10
    disk.refused = ()
    rig.settle()
    assert rig.state() is (DeploymentState.COMMITTED if is_good else DeploymentState.FAILED)
    probes = [job for job in rig.children.jobs if job.kind is JobKind.PROBE]
    assert [str(job.subject.artifact) for job in probes] == ["digits@1", "digits@2"]


def test_after_a_restart_a_candidate_is_probed_again(rig: AgentRig, disk: FullDisk) -> None:
    """The runtime may be another one by then, so what was found is not kept on disk."""
    rig.desire(*artifact(2, NEW))
    rig.run_until(DeploymentState.PROBING)
    disk.refused = (("write", "/records/"),)
    turn_through(rig)
    rig.start()
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    probed = [str(row.subject.artifact) for row in rig.children.jobs if row.kind is JobKind.PROBE]
    assert probed == ["digits@1", "digits@2", "digits@2"]


def test_a_journal_that_cannot_be_written_in_probation_commits_later(
    rig: AgentRig, disk: FullDisk
) -> None:
    rig.desire(*artifact(2, NEW))
    rig.run_until(DeploymentState.PROBATION)
    disk.refused = (("write", "/records/"),)
    turn_through(rig, 60)
    assert rig.state() is DeploymentState.PROBATION
    disk.refused = ()
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_model_that_was_gone_back_from_is_never_committed_because_the_disk_was_full(
    rig: AgentRig, disk: FullDisk, is_restarted: bool
) -> None:
    rig.desire(*artifact(2, NEW))
    rig.run_until(DeploymentState.PROBATION)
    rig.children.verdicts["digits@2:check"] = (ErrorCode.MODEL_GOLDEN, "other outputs")
    disk.refused = (("write", "/records/"),)
    turn_through(rig, 60)
    assert str(rig.active()) == "digits@1"
    rig.children.verdicts.clear()
    disk.refused = ()
    if is_restarted:
        rig.start()
    rig.settle()
    code = ErrorCode.STORAGE_CORRUPT if is_restarted else ErrorCode.MODEL_GOLDEN
    assert (rig.state(), rig.error_code()) == (DeploymentState.ROLLED_BACK, code)
    assert str(rig.active()) == "digits@1"


def test_a_check_that_cannot_be_started_takes_no_model_back(
    rig: AgentRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.desire(*artifact(2, NEW))
    rig.run_until(DeploymentState.PROBATION)
    refused: list[Job] = []

    def refuse(job: Job) -> None:
        refused.append(job)
        monkeypatch.undo()
        raise StorageError("no room for the files of a child")

    monkeypatch.setattr(rig.children, "start", refuse)
    rig.settle()
    assert len(refused) == 1
    assert rig.state() is DeploymentState.COMMITTED
    assert str(rig.active()) == "digits@2"


@pytest.mark.parametrize("version", [1, 3])
def test_a_disk_that_fills_up_right_after_the_swap_does_not_swap_to_and_fro(
    rig: AgentRig, disk: FullDisk, version: int
) -> None:
    rig.desire(*artifact(2, NEW))
    rig.settle()
    swaps = disk.count_swaps_and_fill_up_at_the_first()
    rig.desire(*artifact(version, OLD if version == 1 else NEW + b"more"))
    turn_through(rig, 60)
    assert swaps == ["active"]
    assert str(rig.active()) == f"digits@{version}"
    disk.refused = ()
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert str(rig.active()) == f"digits@{version}"


@pytest.mark.parametrize(("step", "where"), [("remove", "/slots/"), ("write", "/records/")])
def test_a_desire_that_waited_is_taken_up_although_the_disk_refused_when_its_time_came(
    rig: AgentRig, step: str, where: str
) -> None:
    rig.desire(*artifact(2, NEW))
    rig.settle()
    rig.desire(*artifact(3, NEW + b"more"))
    rig.run_until(DeploymentState.PROBATION)
    rig.desire(*artifact(4, NEW + b"most"))
    refused: list[str] = []

    def refuse(found_step: str, path: Path) -> None:
        is_proven = rig.state() is DeploymentState.COMMITTED
        if is_proven and found_step == step and where in str(path) and len(refused) < 5:
            refused.append(path.name)
            raise OSError(28, "No space left on device")

    rig.tools.disk._observe = refuse
    turn_through(rig, 60)
    assert refused
    rig.settle()
    assert (rig.state(), str(rig.active())) == (DeploymentState.COMMITTED, "digits@4")


def test_a_part_that_cannot_be_made_durable_ends_the_deployment(
    rig: AgentRig, disk: FullDisk
) -> None:
    disk.refused = (("fsync", ".part"),)
    rig.desire(*artifact(2, NEW))
    turn_through(rig)
    assert rig.state() is DeploymentState.FAILED
    assert rig.error_code() is ErrorCode.STORAGE_WRITE
    assert str(rig.active()) == "digits@1"
    assert rig.tools.bench.owner is None


def test_reports_that_cannot_be_written_do_not_stop_a_deployment_for_good(
    rig: AgentRig, disk: FullDisk
) -> None:
    disk.refused = (("write", "/outbox/"),)
    with contextlib.suppress(StorageError):
        rig.desire(*artifact(2, NEW))
    turn_through(rig, 60)
    disk.refused = ()
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert str(rig.active()) == "digits@2"


def test_a_damaged_last_good_slot_is_forgotten_at_the_next_start_and_updates_go_on(
    rig: AgentRig,
) -> None:
    rig.desire(*artifact(2, NEW))
    rig.settle()
    (rig.root / "models" / "digits" / "last_good" / "manifest.json").write_text("{")
    rig.start()
    assert str(rig.active()) == "digits@2"
    rig.desire(*artifact(3, NEW + b"more"))
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert str(rig.active()) == "digits@3"


def test_a_damaged_last_good_model_never_takes_the_place_of_a_damaged_active_one(
    rig: AgentRig,
) -> None:
    rig.desire(*artifact(2, NEW))
    rig.settle()
    for link in ("active", "last_good"):
        model = rig.root / "models" / "digits" / link / "model.onnx"
        model.chmod(0o644)
        model.write_bytes(b"damaged")
    rig.start()
    assert rig.active() is None


def test_a_damaged_active_manifest_gives_way_to_the_last_good_one(rig: AgentRig) -> None:
    rig.desire(*artifact(2, NEW))
    rig.settle()
    (rig.root / "models" / "digits" / "active" / "manifest.json").write_text("{")
    rig.start()
    assert str(rig.active()) == "digits@1"


def test_a_damaged_journal_leaves_the_active_model_and_takes_new_desires(rig: AgentRig) -> None:
    (rig.root / "records" / "digits.json").write_text("{")
    rig.start()
    assert rig.state() is None
    assert str(rig.active()) == "digits@1"
    rig.desire(*artifact(2, NEW))
    rig.settle()
    assert str(rig.active()) == "digits@2"


def test_a_slot_that_vanished_before_its_activation_leaves_the_active_model(
    rig: AgentRig,
) -> None:
    rig.desire(*artifact(2, NEW))
    rig.run_until(DeploymentState.PROBING)
    for path in (rig.root / "slots" / "digits").glob("2-*/manifest.json"):
        path.unlink()
    rig.settle()
    assert rig.error_code() is ErrorCode.STORAGE_CORRUPT
    assert str(rig.active()) == "digits@1"


def test_one_model_that_the_disk_refuses_does_not_keep_another_from_being_taken_up(
    rig: AgentRig, disk: FullDisk
) -> None:
    disk.refused = (("write", "/records/.digits"),)
    with contextlib.suppress(StorageError):
        rig.desire(*artifact(2, NEW))
    signed, payload = make_artifact("letters", 1, OLD, chunk_bytes=CHUNK)
    with contextlib.suppress(StorageError):
        rig.desire(signed, payload, name="letters")
    turn_through(rig, 60)
    assert str(rig.active("letters")) == "letters@1"
    disk.refused = ()
    turn_through(rig, 60)
    assert str(rig.active("digits")) == "digits@2"


@pytest.mark.parametrize("state", [DeploymentState.FETCHING, DeploymentState.PROBING])
def test_one_model_that_the_disk_keeps_from_going_on_keeps_no_other_waiting(
    rig: AgentRig, disk: FullDisk, state: DeploymentState, caplog: pytest.LogCaptureFixture
) -> None:
    rig.desire(*artifact(2, NEW))
    rig.run_until(state)
    disk.refused = (("write", "/records/.digits"),)
    signed, payload = make_artifact("letters", 1, OLD, chunk_bytes=CHUNK)
    rig.desire(signed, payload, name="letters")
    turn_through(rig, 60)
    assert disk.refusals > 10
    assert rig.state("letters") is DeploymentState.COMMITTED
    assert sum("waits for the disk" in message for message in caplog.messages) <= 1, "said once"
    disk.refused = ()
    rig.settle()
    assert (rig.state(), str(rig.active())) == (DeploymentState.COMMITTED, "digits@2")


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_swap_that_was_swung_back_stays_so_although_that_could_not_be_written(
    rig: AgentRig, is_restarted: bool
) -> None:
    """The swap cannot be synced; then its journal is refused, after a restart that of the ending."""
    rig.desire(*artifact(2, NEW))
    swaps: list[str] = []
    journals_left = 1 if is_restarted else 0

    def refuse(step: str, path: Path) -> None:
        nonlocal journals_left
        if (step, path.name) == ("rename", "active"):
            swaps.append(path.name)
        is_first_sync = len(swaps) == 1 and (step, path.name) == ("fsync_folder", "digits")
        is_journal = len(swaps) > 1 and (step, path.name) == ("rename", "digits.json")
        if is_first_sync or (is_journal and journals_left < 1):
            raise OSError(28, "No space left on device")
        journals_left -= is_journal

    rig.tools.disk._observe = refuse
    turn_through(rig, 60)
    assert str(rig.active()) == "digits@1"
    assert rig.state() is DeploymentState.ACTIVATING
    rig.tools.disk._observe = lambda _step, _path: None
    if is_restarted:
        rig.start()
    rig.settle()
    assert (rig.state(), rig.error_code()) == (DeploymentState.ROLLED_BACK, ErrorCode.STORAGE_WRITE)
    assert str(rig.active()) == "digits@1"
    assert len(swaps) == 2, "there and back, and not to and fro"


def test_a_slot_that_vanished_in_probation_gives_way_to_the_last_good_one(rig: AgentRig) -> None:
    rig.desire(*artifact(2, NEW))
    rig.run_until(DeploymentState.PROBATION)
    for path in (rig.root / "slots" / "digits").glob("2-*/manifest.json"):
        path.unlink()
    rig.settle()
    assert rig.state() is DeploymentState.ROLLED_BACK
    assert rig.tools.bench.owner is None
    assert str(rig.active()) == "digits@1"


def test_reports_that_waited_for_room_arrive_in_order(rig: AgentRig, disk: FullDisk) -> None:
    before = len(rig.reports())
    disk.refused = (("write", "/outbox/"),)
    rig.desire(*artifact(2, NEW))
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert len(rig.reports()) == before
    disk.refused = ()
    rig.turn()
    states = [state for _, state, _ in rig.reports()[before:]]
    assert states == [
        "assigned", "fetching", "verifying", "staged", "probing", "activating", "probation", "committed",
    ]  # fmt: skip


def test_what_expired_before_it_was_begun_is_refused(rig: AgentRig) -> None:
    """[P-5.10]"""
    policy = Policy(expires_at=rig.clock.now() - 1)
    rig.desire(*artifact(2, NEW), policy=policy)
    rig.settle()
    assert rig.error_code() is ErrorCode.REJECTED_EXPIRED
    assert str(rig.active()) == "digits@1"
