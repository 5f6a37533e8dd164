"""kill -9 of a real agent in every state of an update, over a real mosquitto.

The agent stops itself at a step on its disk in that state, and is killed there; a new one starts on
what is left. `make soak` does the same at random instants, by the thousand.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.agent_process import AgentProcess
from support.brokers import BrokerProcess, find_mosquitto
from support.control_plane_stub import ControlPlaneStub
from support.tiny_models import make_real_artifact
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState, may_supersede
from trimtab_protocol.measurement import MeasureSpec
from trimtab_protocol.messages import Policy

pytestmark = [
    pytest.mark.mosquitto,
    pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto on this machine"),
]

S = DeploymentState
PATIENCE_S = 60.0
TESTS = Path(__file__).resolve().parents[1]
SMALLEST = MeasureSpec(processes=1, min_runs=11, min_steady_s=0.0, warm_up_s=0.0)
AFTER_THE_RENAME = 10
"""Of the steps while `activating`: after the one that swaps `active`, before its folder is synced."""
AFTER_THE_COUNT = 3
"""Of the steps after a start in `probation`: the journal counts it with its first three."""
POLICY = Policy(probe=SMALLEST, probation_s=0.0)
BEFORE_THE_SWAP = frozenset(state for state in S if may_supersede(state)) | {S.FAILED}


class Site:
    """A device that has version 1, and takes one update after the other."""

    def __init__(self, folder: Path) -> None:
        self.broker = BrokerProcess("mosquitto", folder / "broker")
        self.broker.start()
        self.plane = ControlPlaneStub(self.broker.port)
        self.agent = AgentProcess(folder / "agent", self.broker.port)
        self.version = 1
        self.desire(1.0)
        self.agent.start()
        self.plane.wait_for_state(S.COMMITTED, "v1")
        self.agent.kill()

    def desire(self, scale: float, golden_scale: float | None = None) -> None:
        artifact = make_real_artifact(
            self.version,
            scale=scale,
            golden_scale=golden_scale,
            padding_bytes=8000,
            chunk_bytes=1024,
        )
        self.plane.desire(*artifact, deployment_id=f"v{self.version}", policy=POLICY)

    def die_in(self, state: DeploymentState, step: int) -> None:
        """Start an agent, wait until it has stopped before a step in a state, and kill it."""
        path = f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"
        self.agent.start(
            "support.stopping_agent",
            PYTHONPATH=path,
            STOP_FOR=f"v{self.version}",
            STOP_IN=state.value,
            STOP_AT=str(step),
        )
        until = time.monotonic() + PATIENCE_S
        agent = psutil.Process(self.agent.pid)
        while (status := agent.status()) != psutil.STATUS_STOPPED:
            is_alive = status != psutil.STATUS_ZOMBIE and time.monotonic() < until
            assert is_alive, f"never stopped in {state.value}: {self.agent.log()[-2000:]}"
            time.sleep(0.01)
        self.agent.kill()

    def active(self) -> int:
        slot = self.agent.active()
        return slot.ref.version if slot is not None else 0

    def end(self) -> None:
        self.agent.stop()
        self.plane.close()
        self.broker.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    try:
        yield made
    finally:
        made.end()


@pytest.mark.parametrize(
    ("state", "step"),
    [*((row, 0) for row in S if row is not S.ROLLED_BACK), (S.ACTIVATING, AFTER_THE_RENAME)],
)
def test_an_agent_killed_in_a_state_goes_on_to_the_end_of_the_update(
    site: Site, state: DeploymentState, step: int
) -> None:
    old = site.active()
    site.version += 1
    site.desire(scale=site.version, golden_scale=0.5 if state is S.FAILED else None)
    site.die_in(state, step)
    active = site.active()
    is_swapped = state not in BEFORE_THE_SWAP and (state, step) != (S.ACTIVATING, 0)
    assert active == (site.version if is_swapped else old)
    site.agent.start()
    ends_as = S.FAILED if state is S.FAILED else S.COMMITTED
    report = site.plane.wait_for_state(ends_as, f"v{site.version}")
    assert report.error_code is (ErrorCode.MODEL_GOLDEN if state is S.FAILED else None)
    assert site.active() == (old if state is S.FAILED else site.version)
    site.agent.kill()


def test_an_agent_killed_while_it_goes_back_has_gone_back(site: Site) -> None:
    old = site.active()
    site.version += 1
    site.desire(scale=site.version)
    for step in (0, AFTER_THE_COUNT, AFTER_THE_COUNT):  # the next start is one too many
        site.die_in(S.PROBATION, step)
        assert site.active() == site.version
    site.die_in(S.ROLLED_BACK, 0)
    assert site.active() == old
    site.agent.start()
    report = site.plane.wait_for_state(S.ROLLED_BACK, f"v{site.version}")
    assert report.error_code is ErrorCode.MODEL_CRASH
    assert site.active() == old
    site.agent.kill()
