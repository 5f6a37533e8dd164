"""A control plane and two agents as real processes, over each embedded broker."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.artifacts import TEST_PRIVATE_KEY
from support.brokers import find_mosquitto
from support.control_plane import RunningControlPlane, cli
from trimtab_protocol.api import Device
from trimtab_protocol.messages import Presence
from trimtab_protocol.signing import encode_key, public_key_of

BROKERS = [
    pytest.param(
        "mosquitto",
        marks=[
            pytest.mark.mosquitto,
            pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto on this machine"),
        ],
    ),
    "amqtt",
]

AGENT_TOML = """\
state_dir = "state"
credentials = "credentials.json"
trusted_keys = ["{public_key}"]
device_class = "{device_class}"

[mqtt]
reconnect_min_s = 1
reconnect_max_s = 1

[measure]
lock = "{lock}"
"""


@dataclass
class Fleet:
    """Folders and processes of one small fleet."""

    folder: Path
    plane: RunningControlPlane
    agents: dict[str, subprocess.Popen[bytes]]

    def add(self, device: str, device_class: str) -> None:
        """A device that is made known, configured and started."""
        folder = self.folder / device
        folder.mkdir()
        done = cli(
            "device", "add", device, "--data", str(self.plane.folder),
            "--out", str(folder / "credentials.json"),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (folder / "agent.toml").write_text(
            AGENT_TOML.format(
                public_key=encode_key(public_key_of(TEST_PRIVATE_KEY)),
                device_class=device_class,
                lock=self.folder / "measure.lock",
            )
        )
        self.start(device)

    def start(self, device: str) -> None:
        folder = self.folder / device
        with (folder / "log").open("ab") as log:
            self.agents[device] = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "trimtab_agent.cli",
                    "run",
                    "--config",
                    str(folder / "agent.toml"),
                ],
                stdout=log,
                stderr=log,
            )

    def device(self, device: str) -> Device:
        return next(row for row in self.plane.client().devices() if row.device == device)

    def active(self, device: str, name: str = "digits") -> str | None:
        reported = self.device(device).reported
        status = reported.models.get(name) if reported is not None else None
        return str(status.active) if status is not None and status.active is not None else None

    def wait_until_online(self) -> None:
        wait_for(
            "every agent to be online",
            lambda: all(self.device(name).presence is Presence.ONLINE for name in self.agents),
        )

    def stop(self) -> None:
        for process in self.agents.values():
            if process.poll() is None:
                process.terminate()
        for process in self.agents.values():
            process.wait(20)
        self.plane.stop()


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"waited {timeout_s:.0f} s for {what}"
        time.sleep(0.1)


@pytest.fixture(params=BROKERS)
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    plane = RunningControlPlane(tmp_path / "plane", request.param)
    made = Fleet(tmp_path, plane, {})
    try:
        plane.start()
        made.add("device-a", "class-a")
        made.add("device-b", "class-b")
        made.wait_until_online()
        yield made
    finally:
        made.stop()
    assert plane.children() == [], "a process was left behind"
