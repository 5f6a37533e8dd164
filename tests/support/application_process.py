"""The example application as a process, and clients that ask it without a pause."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "application" / "serve.py"
QUESTION = json.dumps({"inputs": {"x": [[1, 2, 3, 4]]}}).encode()


class ApplicationProcess:
    """`examples/application/serve.py` for the model `digits`, with a heartbeat each 0.2 s."""

    def __init__(self, folder: Path, socket: Path, *, name: str = "camera") -> None:
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), "--socket", str(socket), "--model", "digits",
                 "--port", "0", "--application", name, "--heartbeat-s", "0.2"],
                stdout=log, stderr=log,
            )  # fmt: skip
        self.port = int(self._wait_for(r"^port (\d+)$"))

    def log(self) -> str:
        return self._log.read_text()

    def wait_until_serves(self, version: int) -> None:
        self._wait_for(rf"^(version {version} serves)$")

    def hang(self) -> None:
        """It is there, and does nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _wait_for(self, pattern: str, timeout_s: float = 60.0) -> str:
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            found = re.findall(pattern, self.log(), re.MULTILINE)
            if found:
                return str(found[-1])
            time.sleep(0.05)
        raise AssertionError(f"waited {timeout_s:.0f} s for {pattern}; its log:\n{self.log()}")


class Askers:
    """Several clients that ask without a pause, each on its own connection."""

    def __init__(self, port: int, count: int = 3) -> None:
        self.failures: list[str] = []
        self.answers: list[tuple[int, float]] = []  # version, first output
        self._port = port
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def wait_for_answers(self, version: int, count: int) -> None:
        until_s = time.monotonic() + 60
        while sum(row[0] == version for row in self.answers) < count:
            assert time.monotonic() < until_s, f"version {version} does not answer"
            time.sleep(0.02)

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(20)

    def _ask_on(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._is_over.is_set():
            try:
                connection.request("POST", "/", QUESTION)
                answer = connection.getresponse()
                found: Any = json.loads(answer.read())
            except (OSError, HTTPException, ValueError) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            if answer.status == 200:
                self.answers.append((found["version"], found["outputs"]["y"][0][0]))
            else:
                self.failures.append(f"{answer.status}: {found}")
            self._is_over.wait(0.002)
        connection.close()
