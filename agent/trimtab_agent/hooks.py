"""Hooks: programs of the device's owner that are asked before and told after a model changes.

A hook is an executable file in the folder `hooks_dir`, called as

    before-activate | after-activate | after-rollback  NAME ARTIFACT PATH

with the same in TRIMTAB_HOOK, TRIMTAB_MODEL, TRIMTAB_ARTIFACT and TRIMTAB_PATH. ARTIFACT and PATH (of the
model file) are empty where a rollback left no model. Rules:
    1. Exit 0 is go, 21 is later, anything else (a signal, no answer in time) is abort.
    2. A hook may run again after a kill or a power cut, so it must be repeatable.
    3. At most one hook runs per model name. It has its own process group, which is killed when the
       time is over; it is killed when the agent dies.
    4. The first 10 KiB of its output are kept, the rest is read and dropped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from trimtab_agent.disk import storage_errors
from trimtab_agent.hook_rules import HookCall, HookPoint, HookResult, Verdict, judge_exit
from trimtab_agent.processes import kill_group
from trimtab_protocol.errors import StorageError

MAX_OUTPUT_BYTES = 10 * 1024
DRAIN_S = 1.0
"""How long the output is waited for after the end; what a hook left running may hold it open."""


class HookRunner(Protocol):
    """Runs hooks, elsewhere."""

    def has(self, point: HookPoint) -> bool:
        """Whether there is a hook for this point now."""

    def start(self, call: HookCall) -> None:
        """Begin; its HookResult comes later.

        Raises:
            StorageError: No process is to be had.
        """


class NoHooks:
    """A device without hooks."""

    def has(self, point: HookPoint) -> bool:  # noqa: ARG002 - the port
        """There is none."""
        return False

    def start(self, call: HookCall) -> None:
        """There is nothing to start."""
        raise StorageError(f"this device has no hook {call.point.value}")


class ProcessHooks:
    """Runs the files of a folder.

    Args:
        folder: Looked into at every call, so that hooks may come and go.
        put_result: Called from another thread.
        max_hook_s: A hook that takes longer is killed, which counts as abort.
    """

    def __init__(
        self, folder: Path, put_result: Callable[[HookResult], None], max_hook_s: float
    ) -> None:
        self._folder = folder
        self._put_result = put_result
        self._max_hook_s = max_hook_s

    def has(self, point: HookPoint) -> bool:
        """Whether there is a file of this name; one that cannot be executed says abort."""
        return (self._folder / point.value).is_file()

    def start(self, call: HookCall) -> None:
        """Start the process; a thread waits for its end.

        Started here and not in that thread: a child that asked to die with its parent dies with
        the thread that made it, see prctl(2).

        Raises:
            StorageError: No process is to be had.
        """
        path = self._folder / call.point.value
        arguments = [str(path), call.name, call.artifact, call.path]
        environment = os.environ | {
            "TRIMTAB_HOOK": call.point.value,
            "TRIMTAB_MODEL": call.name,
            "TRIMTAB_ARTIFACT": call.artifact,
            "TRIMTAB_PATH": call.path,
        }
        with storage_errors("start", path):
            process = subprocess.Popen(
                [sys.executable, "-m", "trimtab_agent.hook_child", str(os.getpid()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        threading.Thread(target=self._wait, args=(call, process), name="hook", daemon=True).start()

    def _wait(self, call: HookCall, process: subprocess.Popen[bytes]) -> None:
        kept = bytearray()
        reader = threading.Thread(target=_read, args=(process.stdout, kept), daemon=True)
        reader.start()
        try:
            verdict, how = judge_exit(process.wait(self._max_hook_s))
        except subprocess.TimeoutExpired:
            kill_group(process)
            verdict, how = Verdict.ABORT, f"did not end within {self._max_hook_s:g} s"
        reader.join(DRAIN_S)
        text = " ".join(bytes(kept).decode(errors="replace").split())
        detail = f"{call.point.value} {how}" + (f": {text}" if text else "")
        self._put_result(HookResult(call, verdict, detail))


def _read(stream: IO[bytes] | None, kept: bytearray) -> None:
    """Keep the beginning and drop the rest, so that no hook waits for a reader."""
    if stream is None:
        return
    with stream:
        while block := stream.read1(4096) if hasattr(stream, "read1") else stream.read(4096):
            kept += block[: MAX_OUTPUT_BYTES - len(kept)]
