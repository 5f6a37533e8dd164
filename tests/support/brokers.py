"""Real brokers as processes, for tests of one device: everybody may log in, and the port stays the
same over a restart. (What a broker must refuse is tested with the control plane's own brokers.)
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

MOSQUITTO_CONF = """\
listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay {nodelay}
persistence true
persistence_location {folder}/
autosave_interval 1
max_queued_messages 100000
max_inflight_messages 0
log_dest none
{user}
"""

AMQTT_CONF = """\
listeners:
  default:
    type: tcp
    bind: 127.0.0.1:{port}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin:
    allow_anonymous: true
"""


def find_mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class BrokerProcess:
    """A broker of kind "mosquitto" or "amqtt"."""

    def __init__(self, kind: str, folder: Path, *, nodelay: bool = True) -> None:
        self.kind = kind
        self.port = free_port()
        self._folder = folder
        self._nodelay = nodelay
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        command = self._mosquitto() if self.kind == "mosquitto" else self._amqtt()
        log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        self._wait_until_open()

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def crash_and_forget(self) -> None:
        """kill -9, and what it had kept on disk is lost."""
        self.stop(signal.SIGKILL)
        (self._folder / "mosquitto.db").unlink(missing_ok=True)

    def restart(self, down_s: float = 0.5) -> None:
        self.stop()
        time.sleep(down_s)
        self.start()

    def _mosquitto(self) -> list[str]:
        import os  # noqa: PLC0415

        path = self._folder / "mosquitto.conf"
        path.write_text(
            MOSQUITTO_CONF.format(
                port=self.port,
                folder=self._folder,
                nodelay=str(self._nodelay).lower(),
                user="user root" if os.geteuid() == 0 else "",
            )
        )
        return [find_mosquitto() or "mosquitto", "-c", str(path)]

    def _amqtt(self) -> list[str]:
        path = self._folder / "amqtt.yaml"
        path.write_text(AMQTT_CONF.format(port=self.port))
        return [str(Path(sys.executable).parent / "amqtt"), "-c", str(path)]

    def _wait_until_open(self) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.5).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise AssertionError(f"{self.kind} did not open port {self.port}")
