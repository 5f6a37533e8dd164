"""The real `trimtab-deploy serve` as a process, started and killed by tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from trimtab_deploy.client import Client
from trimtab_deploy.folder import ServerFile
from trimtab_protocol.api import DeviceCredentials, DeviceSpec
from trimtab_protocol.manifest import SignedManifest
from trimtab_protocol.signing import read_manifest


def cli(*arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Run one `trimtab-deploy` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "trimtab_deploy.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


class RunningControlPlane:
    """One data folder and the process that serves it."""

    def __init__(self, folder: Path, broker: str) -> None:
        self.folder = folder
        self.broker = broker
        self.process: subprocess.Popen[bytes] | None = None
        self._log = folder.with_name(folder.name + ".log")

    def start(self, *more: str) -> RunningControlPlane:
        """Start it and wait until it serves."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "trimtab_deploy.cli", "serve"),
                    *("--data", str(self.folder), "--http-port", "0", "--mqtt-port", "0"),
                    *("--broker", self.broker),
                    *more,
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            if self._is_serving():
                return self
            time.sleep(0.05)
        raise AssertionError(f"not ready: {self.log()}")

    def _is_serving(self) -> bool:
        assert self.process is not None
        try:
            found = json.loads((self.folder / "server.json").read_text())
        except (OSError, ValueError):
            return False
        return bool(found["pid"] == self.process.pid)

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    @property
    def facts(self) -> ServerFile:
        """Content of server.json."""
        return ServerFile.model_validate_json((self.folder / "server.json").read_bytes())

    @property
    def token(self) -> str:
        """The administrator's token."""
        return (self.folder / "admin.token").read_text().strip()

    def client(self) -> Client:
        """A client for its API."""
        return Client(self.facts.http_url, self.token, say=lambda _: None)

    def http(self) -> httpx.Client:
        """A raw HTTP client with its token."""
        return httpx.Client(
            base_url=self.facts.http_url, headers={"Authorization": f"Bearer {self.token}"}
        )

    def add_device(self, name: str) -> DeviceCredentials:
        """Make a device known."""
        return self.client().add_device(DeviceSpec(device=name))

    def push(self, signed: SignedManifest, payload: bytes) -> None:
        """Push an artifact from memory."""
        sha256 = read_manifest(signed).payload.sha256
        with self.http() as http:
            answer = http.put(f"/api/v1/payloads/{sha256}", content=payload)
            assert answer.status_code in (200, 201), answer.text
        self.client().push_artifact(signed)

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory is short."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(20)

    def children(self) -> list[int]:
        """Processes whose command line names the data folder, itself included."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if str(self.folder).encode() in command:
                    found.append(int(entry.name))
        return found
