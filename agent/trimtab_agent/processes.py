"""Starting child processes so that none outlives its purpose.

A child gets its own process group, so that it can be killed with everything it started, and asks
the kernel to be killed when its parent dies (prctl PR_SET_PDEATHSIG), so that not even kill -9 of
the resident leaves one behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h

ENVIRONMENT_DENIED = ("PYTHONSTARTUP",)


def start_module(
    module: str, arguments: list[str], *, stderr_path: Path, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start `python -m module` in its own process group; its output goes to a file.

    Its temporary files lie beside that file, so that whoever removes the folder removes them too,
    even if the child was killed. It inherits `pass_fds` and no other descriptor.
    """
    environment = {k: v for k, v in os.environ.items() if k not in ENVIRONMENT_DENIED}
    environment["ORT_DISABLE_TELEMETRY"] = "1"
    environment["TMPDIR"] = str(stderr_path.parent)
    with stderr_path.open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env=environment,
            start_new_session=True,
            pass_fds=pass_fds,
        )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a child and everything it started, and collect it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def describe_end(return_code: int) -> str:
    """How a process ended, by Popen's return code, to be put after its name."""
    if return_code >= 0:
        return f"ended with code {return_code}"
    try:
        return f"was killed by {signal.Signals(-return_code).name}"
    except ValueError:  # most real-time signals have no name
        return f"was killed by signal {-return_code}"


def die_with_parent(parent_pid: int) -> None:
    """Ask to be killed when the parent dies; exit at once if it already has.

    Args:
        parent_pid: Who the parent should be. Between fork and this call it may have died, and then
            no signal would ever come.
    """
    import ctypes  # noqa: PLC0415 - only children call this; the resident stays smaller without

    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def read_tail(path: Path, limit: int = 400) -> str:
    """The last characters that a child wrote, in one line."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return ""
    return " ".join(text.split())[-limit:]
