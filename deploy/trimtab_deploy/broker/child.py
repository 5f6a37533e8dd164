"""A child process that does not outlive its parent, even when the parent is killed (Linux)."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None, use_errno=True)


def _die_with(parent_pid: int) -> Callable[[], None]:
    """What runs in the child between fork and exec: only calls that were bound before the fork."""

    def ask_the_kernel() -> None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:  # the parent died before the call
            os._exit(1)

    return ask_the_kernel


async def start_child(arguments: Sequence[str], log_path: Path) -> asyncio.subprocess.Process:
    """Start a program whose output goes to a file, and that gets SIGTERM when we die.

    Args:
        arguments: Program and arguments.
        log_path: Appended to; both streams.

    Raises:
        OSError: The program cannot be started or the file cannot be opened.
    """
    with log_path.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_die_with(os.getpid()) if sys.platform == "linux" else None,
            start_new_session=True,  # Ctrl-C goes to us, and we stop the child in order
        )


async def stop_child(process: asyncio.subprocess.Process, grace_s: float = 5.0) -> None:
    """SIGTERM, and SIGKILL if that was not enough; returns when the process is gone."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(grace_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def stop_leftover(pid_path: Path, expected_argument: str, grace_s: float = 5.0) -> None:
    """End the child of an earlier run that is still going, known by its pid file and an argument.

    A control plane that is restarted right after a SIGKILL meets the old child while it is saving
    its database: two of them must not own the same files.
    """
    try:
        pid = int(pid_path.read_text())
    except (OSError, ValueError):
        return
    if not _is_running(pid, expected_argument):
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while _is_running(pid, expected_argument):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.02)


def _is_running(pid: int, expected_argument: str) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return expected_argument.encode() in command.split(b"\0")
