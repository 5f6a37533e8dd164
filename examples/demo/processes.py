"""Starting the real programs, and leaving none of them behind.

Every process is told by the kernel to end when this one does (PR_SET_PDEATHSIG), so not even
kill -9 of the demo leaves one running.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
STOP_TIMEOUT_S = 15

LIBC = ctypes.CDLL(None)
PROGRAMS = Path(sys.executable).parent


class CommandError(Exception):
    """A command of ours ended with an exit code that was not expected."""


def end_with_parent() -> None:
    """Run in the child, before exec."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Processes:
    """The long-running ones, stopped in reverse order."""

    def __init__(self, log_folder: Path, environment: dict[str, str]) -> None:
        self._log_folder = log_folder
        self._environment = os.environ | environment
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def start(self, label: str, *command: str) -> subprocess.Popen[bytes]:
        """Start one in the background; what it says goes to `label.log`."""
        with (self._log_folder / f"{label}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(PROGRAMS / command[0]), *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - this program has one thread
            )
        self._running.append((label, process))
        return process

    def call(
        self, *command: str, on_line: Callable[[str], None], expected: tuple[int, ...] = (0,)
    ) -> str:
        """Run one to its end.

        Args:
            command: Program and arguments.
            on_line: Called with each line of its stderr.
            expected: Exit codes that are fine.

        Returns:
            Its stdout.

        Raises:
            CommandError: It ended otherwise; with the last lines that it said.
        """
        with subprocess.Popen(
            [str(PROGRAMS / command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=(self._log_folder / "stdout").open("wb"),
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - this program has one thread
        ) as process:
            said: list[str] = []
            assert process.stderr is not None
            try:
                for line in process.stderr:
                    said.append(line.rstrip())
                    on_line(line.rstrip())
            except BaseException:
                process.terminate()
                raise
        if process.returncode not in expected:
            tail = "\n".join(said[-8:])
            raise CommandError(f"`{' '.join(command)}` ended with {process.returncode}:\n{tail}")
        return (self._log_folder / "stdout").read_text()

    def check_alive(self) -> None:
        """Find out early that one of them has died.

        Raises:
            CommandError: With the last lines of its log.
        """
        for label, process in self._running:
            if process.poll() is not None:
                lines = (self._log_folder / f"{label}.log").read_text(errors="replace").splitlines()
                tail = "\n".join(lines[-8:])
                raise CommandError(f"{label} ended with {process.returncode}:\n{tail}")

    def stop_all(self) -> None:
        """Stop them in order, kill what does not listen, and collect them."""
        for _, process in reversed(self._running):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
