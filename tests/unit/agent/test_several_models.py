"""Several models on one device: what one of them does never touches another."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.agent_rig import AgentRig
from support.artifacts import make_artifact
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState, is_final
from trimtab_protocol.manifest import SignedManifest

CHUNK = 1024
NAMES = ("digits", "faces", "words")
MAX_TURNS = 2000


def artifact(name: str, version: int) -> tuple[SignedManifest, bytes]:
    payload = bytes((i * version + len(name)) % 251 for i in range((3 + version) * CHUNK + 7))
    return make_artifact(name, version, payload, chunk_bytes=CHUNK)


@pytest.fixture
def rig(tmp_path: Path) -> AgentRig:
    rig = AgentRig(tmp_path)
    for name in NAMES:
        rig.desire(*artifact(name, 1), name=name)
    rig.settle()
    assert actives(rig) == ["digits@1", "faces@1", "words@1"]
    return rig


def actives(rig: AgentRig) -> list[str]:
    return [str(rig.active(name)) for name in NAMES]


FAULTS = [
    pytest.param("faces@2:probe", ErrorCode.MODEL_GOLDEN, "failed", id="fails its probe"),
    pytest.param("faces@2:check", ErrorCode.MODEL_LOAD, "rolled_back", id="fails in probation"),
]


@pytest.mark.parametrize(("which", "code", "end"), FAULTS)
def test_one_of_three_updates_that_fails_leaves_the_other_two_to_commit(
    rig: AgentRig, which: str, code: ErrorCode, end: str
) -> None:
    rig.children.verdicts[which] = (code, "made to fail")
    for name in NAMES:
        rig.desire(*artifact(name, 2), name=name)
    rig.settle()
    assert actives(rig) == ["digits@2", "faces@1", "words@2"]
    assert [rig.state(name).value for name in NAMES] == ["committed", end, "committed"]  # type: ignore[union-attr]
    assert [rig.error_code(name) for name in NAMES] == [None, code, None]
    assert rig.tools.bench.owner is None


def test_three_updates_overlap_and_each_name_has_one_whole_model_at_every_turn(
    rig: AgentRig,
) -> None:
    rig.children.verdicts["faces@2:check"] = (ErrorCode.MODEL_LOAD, "made to fail")
    overlaps: set[tuple[DeploymentState | None, ...]] = set()
    for name in NAMES:
        rig.desire(*artifact(name, 2), name=name)
    for _ in range(MAX_TURNS):
        if not rig.turn():
            rig.clock.pass_time(1.0)
        states = tuple(rig.state(name) for name in NAMES)
        overlaps.add(states)
        for name, active in zip(NAMES, actives(rig), strict=True):
            assert active in (f"{name}@1", f"{name}@2")
        if all(state is not None and is_final(state) for state in states):
            break
    assert any(len({*states}) == len(NAMES) for states in overlaps), overlaps
    assert actives(rig) == ["digits@2", "faces@1", "words@2"]


def test_a_restart_between_three_updates_goes_on_with_each_where_it_stood(rig: AgentRig) -> None:
    rig.children.verdicts["words@2:probe"] = (ErrorCode.MODEL_MEMORY, "made to fail")
    for name in NAMES:
        rig.desire(*artifact(name, 2), name=name)
    rig.run_until(DeploymentState.PROBATION, "digits")
    rig.run_until(DeploymentState.FETCHING, "faces")
    rig.start()
    assert rig.state("digits") is DeploymentState.PROBATION
    assert rig.state("faces") is DeploymentState.FETCHING
    assert rig.state("words") is DeploymentState.ASSIGNED
    rig.settle()
    assert actives(rig) == ["digits@2", "faces@2", "words@1"]
