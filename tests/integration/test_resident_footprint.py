"""What a resident that is connected has in it: read from the real process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.agent_process import AgentProcess
from support.brokers import BrokerProcess, find_mosquitto
from support.control_plane_stub import ControlPlaneStub
from support.idle_process import FORBIDDEN, Idle, loaded_packages, watch_idle
from support.tiny_models import make_real_artifact
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.messages import Presence

# The resident itself; when it has ended by SIGTERM it writes down what it had imported.
RUN_AND_TELL = """
import json, sys
from pathlib import Path
from trimtab_agent.cli import main
code = main(["run", "--config", sys.argv[1]])
Path(sys.argv[2]).write_text(json.dumps(sorted(sys.modules)))
sys.exit(code)
"""


@dataclass
class Watched:
    """A resident, its broker and its control plane."""

    folder: Path
    plane: ControlPlaneStub
    process: subprocess.Popen[bytes]

    def wait_until_online(self) -> None:
        self.plane.wait_for("the agent to be online", self._is_online)

    def idle(self) -> Idle:
        return watch_idle(self.process.pid, 0.5)

    def end_and_read_modules(self) -> list[str]:
        self.process.terminate()
        assert self.process.wait(15) == 0
        names: list[str] = json.loads((self.folder / "modules.json").read_text())
        return names

    def _is_online(self) -> bool:
        return bool(self.plane.statuses) and self.plane.statuses[-1].presence is Presence.ONLINE


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    broker = BrokerProcess("mosquitto" if find_mosquitto() else "amqtt", tmp_path / "broker")
    broker.start()
    plane = ControlPlaneStub(broker.port)
    config = AgentProcess(tmp_path / "agent", broker.port).config
    command = [sys.executable, "-c", RUN_AND_TELL, str(config), str(tmp_path / "modules.json")]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield Watched(tmp_path, plane, process)
    finally:
        process.kill()
        process.wait()
        plane.close()
        broker.stop()


def _forbidden(names: list[str]) -> list[str]:
    return [name for name in names if name.split(".", 1)[0] in FORBIDDEN]


def test_a_connected_and_idle_resident_has_no_numpy_and_no_runtime_in_it(watched: Watched) -> None:
    watched.wait_until_online()
    idle = watched.idle()
    assert idle.forbidden == ()
    assert "pydantic_core" in idle.libraries, "the maps were not read"
    modules = watched.end_and_read_modules()
    assert "trimtab_agent.daemon" in modules
    assert _forbidden(modules) == []


def test_after_an_update_was_probed_and_committed_there_still_is_none(watched: Watched) -> None:
    watched.wait_until_online()
    watched.plane.desire(*make_real_artifact(1))
    watched.plane.wait_for_state(DeploymentState.COMMITTED)
    assert watched.idle().forbidden == ()
    assert _forbidden(watched.end_and_read_modules()) == []


def test_a_process_that_loads_numpy_is_told_from_one_that_does_not() -> None:
    code = "import numpy, sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        found = watch_idle(process.pid, 0.05)
        assert "numpy" in loaded_packages(process.pid)
        process.communicate()
    assert "numpy" in found.forbidden
    assert found.pss_bytes >= found.uss_bytes > 1_000_000
    assert found.rss_bytes >= found.pss_bytes
