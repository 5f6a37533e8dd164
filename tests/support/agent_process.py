"""A real `trimtab-agent run` as a process, with its own folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from support.artifacts import TEST_PRIVATE_KEY
from support.control_plane_stub import DEVICE, SITE
from trimtab_agent.disk import Disk
from trimtab_agent.store import Slot, Store
from trimtab_protocol.api import DeviceCredentials
from trimtab_protocol.signing import encode_key, public_key_of

DEVICE_CLASS = "test-board-t1"


class AgentProcess:
    """One agent. `folder` keeps its state over a kill and a new start; `python` is who runs it."""

    def __init__(
        self, folder: Path, port: int, extra: str = "", python: str = sys.executable
    ) -> None:
        self.folder = folder
        self._python = python
        folder.mkdir(parents=True, exist_ok=True)
        credentials = DeviceCredentials(
            device=DEVICE,
            site=SITE,
            mqtt_host="127.0.0.1",
            mqtt_port=port,
            username=DEVICE,
            password="unused",
        )
        (folder / "credentials.json").write_text(credentials.model_dump_json())
        public = encode_key(public_key_of(TEST_PRIVATE_KEY))
        self.config = folder / "agent.toml"
        self.config.write_text(
            f'state_dir = "state"\ncredentials = "credentials.json"\ntrusted_keys = ["{public}"]\n'
            f'device_class = "{DEVICE_CLASS}"\n'
            + extra
            + "\n[measure]\n"
            + f'lock = "{folder / "measure.lock"}"\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, module: str = "trimtab_agent.cli", **environment: str) -> None:
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [self._python, "-m", module, "run", "--config", str(self.config)],
            stdout=log,
            stderr=log,
            env=os.environ | environment,
        )
        log.close()

    def kill(self) -> None:
        """kill -9, at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process = None
        return code

    def wait(self, timeout_s: float) -> int:
        assert self._process is not None
        return self._process.wait(timeout_s)

    def active(self, name: str = "digits") -> Slot | None:
        slot = Store(self.folder / "state", Disk()).active(name)
        assert slot is None or slot.is_whole()
        return slot

    def log(self) -> str:
        return (self.folder / "log").read_text()
