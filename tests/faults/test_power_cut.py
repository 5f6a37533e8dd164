"""Interrupted at any instruction, a device runs the old model or the new one, never half of one.

An update from version 1 to version 2 is a sequence of primitive disk steps (write, fsync, rename,
fsync of a folder, link, remove). Each row cuts the power before one of them, damages what was not
yet synced, starts again on what is left, and looks at what is active.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

from support.agent_rig import AgentRig, PowerCut
from support.artifacts import make_artifact
from support.faults import FAULTS
from support.strike import DEPLOYMENT, Strike, active_in, carry_through
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState

CHUNK = 1024
OLD = make_artifact("digits", 1, bytes(i % 251 for i in range(3 * CHUNK)), chunk_bytes=CHUNK)
NEW = make_artifact("digits", 2, bytes(i % 241 for i in range(4 * CHUNK)), chunk_bytes=CHUNK)


class Breaker:
    """Cuts the power before the n-th step. What was not synced by then is torn: half of it is lost."""

    def __init__(self, root: Path, cut_before: int | None = None) -> None:
        self.cut_before = cut_before
        self.steps: list[tuple[str, str]] = []
        self._payloads = root / "payloads"
        self._durable = {path.stat().st_ino for path in self._files()}

    def __call__(self, step: str, path: Path) -> None:
        if self.cut_before == len(self.steps):
            self._tear(step, path)
            raise PowerCut
        self.steps.append((step, path.name))
        if step == "fsync" and path.is_file():
            self._durable.add(path.stat().st_ino)

    def _tear(self, step: str, path: Path) -> None:
        unsynced = [file for file in self._files() if file.stat().st_ino not in self._durable]
        if step == "fsync" and path.is_file():
            unsynced.append(path)
        for file in unsynced:
            content = file.read_bytes()
            file.write_bytes(content[: len(content) // 2])

    def _files(self) -> list[Path]:
        return list(self._payloads.iterdir()) if self._payloads.is_dir() else []


def updated(root: Path, breaker: Breaker) -> None:
    """Run the update from version 1 to 2 on a prepared folder; the breaker may end it."""
    rig = AgentRig(root, breaker)
    rig.desire(*NEW, deployment_id="to-2")
    rig.settle()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    rig = AgentRig(root)
    rig.desire(*OLD, deployment_id="to-1")
    rig.settle()
    assert str(rig.active()) == "digits@1"
    return root


def count_steps(prepared: Path, folder: Path) -> list[tuple[str, str]]:
    shutil.copytree(prepared, folder, symlinks=True)
    breaker = Breaker(folder)
    updated(folder, breaker)
    return breaker.steps


def test_a_power_cut_before_any_step_of_an_update_leaves_one_whole_model(
    prepared: Path, tmp_path: Path
) -> None:
    steps = count_steps(prepared, tmp_path / "uncut")
    assert len(steps) > 60
    seen = set()
    for number in range(len(steps)):
        folder = tmp_path / f"cut-{number}"
        shutil.copytree(prepared, folder, symlinks=True)
        with pytest.raises(PowerCut):
            updated(folder, Breaker(folder, number))
        survivor = AgentRig(folder)
        active = survivor.active()  # asserts that it is whole
        assert str(active) in {"digits@1", "digits@2"}, (number, steps[number])
        seen.add(str(active))
        survivor.desire(*NEW, deployment_id="to-2")
        survivor.settle()
        assert survivor.state() is DeploymentState.COMMITTED, (number, steps[number])
        assert str(survivor.active()) == "digits@2"
        assert [*survivor.tools.store.names()] == ["digits"]
        shutil.rmtree(folder)
    assert seen == {"digits@1", "digits@2"}


def test_a_power_cut_at_each_step_of_going_back_leaves_one_whole_model(
    prepared: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(prepared, base, symlinks=True)
    rig = AgentRig(base)
    rig.desire(*NEW, deployment_id="to-2")
    rig.run_until(DeploymentState.PROBATION)

    def back(folder: Path, breaker: Breaker) -> None:
        device = AgentRig(folder, breaker)
        device.desire(*OLD, deployment_id="back-to-1")
        device.settle()

    shutil.copytree(base, tmp_path / "uncut", symlinks=True)
    breaker = Breaker(tmp_path / "uncut")
    back(tmp_path / "uncut", breaker)
    assert str(AgentRig(tmp_path / "uncut").active()) == "digits@1"
    for number in range(len(breaker.steps)):
        folder = tmp_path / f"cut-{number}"
        shutil.copytree(base, folder, symlinks=True)
        with pytest.raises(PowerCut):
            back(folder, Breaker(folder, number))
        survivor = AgentRig(folder)
        assert str(survivor.active()) in {"digits@1", "digits@2"}, breaker.steps[number]
        survivor.desire(*OLD, deployment_id="back-to-1")
        survivor.settle()
        assert str(survivor.active()) == "digits@1", breaker.steps[number]


def taken_back(strike: Strike) -> None:
    """A first model is taken back, and nothing is left to go back to."""
    rig = AgentRig(strike.root, strike)
    rig.children.verdicts["digits@2:check"] = (ErrorCode.MODEL_GOLDEN, "other outputs")
    with strike.ruling(rig):
        rig.desire(*NEW, deployment_id=DEPLOYMENT)
        carry_through(rig, strike)


@pytest.mark.parametrize("state", [DeploymentState.PROBATION, DeploymentState.ROLLED_BACK])
def test_a_first_model_that_was_taken_back_does_not_come_back_with_a_power_cut(
    tmp_path: Path, state: DeploymentState
) -> None:
    for point in itertools.count():
        folder = tmp_path / str(point)
        folder.mkdir()
        strike = Strike(folder, FAULTS["power cut"], state, point, are_changes_lost=True)
        try:
            taken_back(strike)
        except PowerCut:
            taken_back(Strike(folder, FAULTS["power cut"], None))
        if not strike.has_struck:
            break
        assert active_in(folder) == "nothing", strike.where
    assert point > 3


def test_a_power_cut_that_tears_the_part_file_only_costs_the_torn_chunks(tmp_path: Path) -> None:
    rig = AgentRig(tmp_path)
    payload = bytes(i % 239 for i in range(12 * CHUNK))
    rig.desire(*make_artifact("digits", 1, payload, chunk_bytes=CHUNK))
    rig.run_until(DeploymentState.FETCHING)
    for _ in range(4):
        rig.turn()
    part = next((tmp_path / "payloads").glob("*.part"))
    content = bytearray(part.read_bytes())
    content[CHUNK : 2 * CHUNK] = bytes(CHUNK)  # chunk 1 never reached the disk
    part.write_bytes(content)
    rig.delivery.requested.clear()
    rig.start()
    rig.settle()
    assert rig.state() is DeploymentState.COMMITTED
    assert 1 in rig.delivery.requested
    assert 0 not in rig.delivery.requested
