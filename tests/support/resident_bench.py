"""A real resident agent with a real mosquitto, watched from outside: starts, idle cost, one update."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.agent_process import AgentProcess
from support.brokers import BrokerProcess
from support.control_plane_stub import ControlPlaneStub
from support.idle_process import Idle, read_pss_bytes, watch_idle
from support.tiny_models import make_real_artifact
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.messages import Presence

SETTLE_S = 2.0
IMPORTS = (
    "import trimtab_agent.cli, trimtab_agent.lean; trimtab_agent.lean.stay_small(); "
    "import trimtab_agent.bootstrap"
)


@dataclass(frozen=True)
class Starts:
    """Seconds from exec until the broker had passed on the agent's own "online"; and their parts.

    `python_s` is an interpreter that does nothing, `imports_s` what loading the agent's modules
    adds; each a median over processes of their own.
    """

    connected_s: list[float]
    python_s: float
    imports_s: float

    @property
    def median_s(self) -> float:
        """The figure."""
        return statistics.median(self.connected_s)

    @property
    def rest_s(self) -> float:
        """What is left: reading the settings, resuming, connecting."""
        return self.median_s - self.python_s - self.imports_s


@dataclass(frozen=True)
class Resident:
    """All of it."""

    starts: Starts
    idle: Idle
    updated_pss_bytes: int


def watch_resident(folder: Path, starts: int, idle_s: float) -> Resident:
    """Start an agent so often, watch the last one idle, then let it take one update."""
    with installed_bytecode(folder / "bytecode"):
        broker = BrokerProcess("mosquitto", folder / "broker")
        broker.start()
        plane = ControlPlaneStub(broker.port)
        agent = AgentProcess(folder / "agent", broker.port)
        try:
            _start_s(agent, plane)  # writes the bytecode, and is not counted
            found = _time_starts(agent, plane, starts)
            time.sleep(SETTLE_S)
            idle = watch_idle(agent.pid, idle_s)
            plane.desire(*make_real_artifact(1))
            plane.wait_for_state(DeploymentState.COMMITTED)
            time.sleep(SETTLE_S)
            return Resident(found, idle, read_pss_bytes(agent.pid))
        finally:
            agent.stop()
            plane.close()
            broker.stop()


@contextmanager
def installed_bytecode(folder: Path) -> Iterator[None]:
    """Children find compiled modules, as an installed agent does, whatever the environment says."""
    kept = dict(os.environ)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def _time_starts(agent: AgentProcess, plane: ControlPlaneStub, count: int) -> Starts:
    connected, bare, imported = [], [], []
    for _ in range(count):
        agent.stop()
        bare.append(_run_s("pass"))
        imported.append(_run_s(IMPORTS))
        connected.append(_start_s(agent, plane))
    python_s = statistics.median(bare)
    return Starts(connected, python_s, statistics.median(imported) - python_s)


def _start_s(agent: AgentProcess, plane: ControlPlaneStub) -> float:
    def is_online() -> bool:
        return len(plane.statuses) > before and plane.statuses[-1].presence is Presence.ONLINE

    before, began = len(plane.statuses), time.monotonic()
    agent.start()
    plane.wait_for("the agent to be online", is_online)
    return time.monotonic() - began


def _run_s(code: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - began
