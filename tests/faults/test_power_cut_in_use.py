"""A device that goes back because of its applications: at whatever step the power is cut, what it
says afterwards is what it runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.agent_rig import AgentRig, PowerCut
from support.artifacts import make_artifact
from trimtab_agent.local.histogram import bucket_of
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.messages import Policy

CHUNK = 1024
OLD = make_artifact("digits", 1, bytes(i % 251 for i in range(3 * CHUNK)), chunk_bytes=CHUNK)
NEW = make_artifact("digits", 2, bytes(i % 241 for i in range(4 * CHUNK)), chunk_bytes=CHUNK)
POLICY = Policy(probation_s=10.0, max_app_p90_ratio=1.2)


class Breaker:
    """Cuts the power before the n-th step."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []
        self.cut_before: int | None = None

    def __call__(self, step: str, path: Path) -> None:
        if self.cut_before == len(self.steps):
            raise PowerCut
        self.steps.append((step, path.name))


def infer(rig: AgentRig, latency_ms: float) -> None:
    active = rig.active()
    assert active is not None
    rig.board.add_latencies("digits", active.sha256, "camera", {bucket_of(latency_ms): 200})


def go_back(folder: Path, cut_after: int | None) -> Breaker:
    """Update to version 2, which is found slow; the power is cut so many steps after that."""
    breaker = Breaker()
    rig = AgentRig(folder, breaker)
    rig.desire(*OLD, deployment_id="to-1")
    rig.settle()
    infer(rig, 10.0)
    rig.desire(*NEW, deployment_id="to-2", policy=POLICY)
    rig.run_until(DeploymentState.PROBATION)
    infer(rig, 20.0)
    breaker.steps.clear()
    breaker.cut_before = cut_after
    rig.settle()
    return breaker


def test_what_a_device_says_after_a_power_cut_in_going_back_is_what_it_runs(
    tmp_path: Path,
) -> None:
    steps = go_back(tmp_path / "uncut", None).steps
    assert AgentRig(tmp_path / "uncut").state() is DeploymentState.ROLLED_BACK
    seen = set()
    for number in range(len(steps)):
        folder = tmp_path / f"cut-{number}"
        with pytest.raises(PowerCut):
            go_back(folder, number)
        survivor = AgentRig(folder)  # whose applications say nothing more
        survivor.settle()
        found = (survivor.state(), str(survivor.active()), survivor.error_code())
        assert found in {
            (DeploymentState.COMMITTED, "digits@2", None),
            (DeploymentState.ROLLED_BACK, "digits@1", ErrorCode.MODEL_SLOW_IN_USE),
        }, (number, steps[number])
        seen.add(found[0])
        shutil.rmtree(folder)
    assert len(seen) == 2
