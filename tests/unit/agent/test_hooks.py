"""Real hooks: what their end means, and that none outlives its time."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from trimtab_agent.hook_rules import HookCall, HookPoint, HookResult, Verdict, judge_exit
from trimtab_agent.hooks import MAX_OUTPUT_BYTES, NoHooks, ProcessHooks
from trimtab_protocol.errors import StorageError

CALL = HookCall(HookPoint.BEFORE_ACTIVATE, "d1", "digits", "digits@2", "/store/model.onnx")


def write_hook(folder: Path, text: str, mode: int = 0o755) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "before-activate"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(mode)
    return path


def run_hook(folder: Path, text: str, max_hook_s: float = 20.0, mode: int = 0o755) -> HookResult:
    write_hook(folder, text, mode)
    results: queue.SimpleQueue[HookResult] = queue.SimpleQueue()
    ProcessHooks(folder, results.put, max_hook_s).start(CALL)
    return results.get(timeout=30)


def wait_for(path: Path) -> int:
    """The process id that a hook wrote."""
    until = time.monotonic() + 20
    while not path.exists() or not path.read_text().endswith("\n"):
        assert time.monotonic() < until, f"{path} was never written"
        time.sleep(0.02)
    return int(path.read_text())


def wait_for_end(pid: int) -> None:
    until = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, f"{pid} is still there"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("code", "verdict"),
    [(0, Verdict.GO), (21, Verdict.LATER), (1, Verdict.ABORT), (2, Verdict.ABORT), (-9, Verdict.ABORT)],
)  # fmt: skip
def test_only_0_is_go_and_only_21_is_later(code: int, verdict: Verdict) -> None:
    assert judge_exit(code)[0] is verdict


@pytest.mark.parametrize("code", [0, 21, 3])
def test_what_a_hook_exits_with_and_says_comes_back(tmp_path: Path, code: int) -> None:
    result = run_hook(tmp_path, f"echo busy until noon; exit {code}\n")
    assert result.call == CALL
    assert result.verdict is judge_exit(code)[0]
    assert result.detail.startswith("before-activate ")
    assert result.detail.endswith(": busy until noon")


def test_a_hook_is_told_what_it_is_about(tmp_path: Path) -> None:
    text = 'echo "$1" "$2" "$3" "$TRIMTAB_HOOK $TRIMTAB_MODEL $TRIMTAB_ARTIFACT $TRIMTAB_PATH"\n'
    result = run_hook(tmp_path, text)
    assert result.detail.endswith(
        "digits digits@2 /store/model.onnx before-activate digits digits@2 /store/model.onnx"
    )


def test_a_hook_that_does_not_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    text = f"sleep 600 &\necho $! > {tmp_path}/pid\nwait\n"
    started_s = time.monotonic()
    result = run_hook(tmp_path, text, max_hook_s=1.5)
    assert time.monotonic() - started_s < 15
    assert result.verdict is Verdict.ABORT
    assert "did not end within 1.5 s" in result.detail
    wait_for_end(wait_for(tmp_path / "pid"))


def test_a_hook_that_talks_without_end_is_neither_held_up_nor_kept_whole(tmp_path: Path) -> None:
    result = run_hook(tmp_path, "yes abcdefg | head -c 3000000\necho the end\n")
    assert result.verdict is Verdict.GO
    assert MAX_OUTPUT_BYTES / 2 < len(result.detail) < MAX_OUTPUT_BYTES + 200
    assert "the end" not in result.detail


def test_what_a_hook_leaves_running_does_not_hold_up_its_answer(tmp_path: Path) -> None:
    text = f"sleep 600 &\necho $! > {tmp_path}/pid\nexit 0\n"
    started_s = time.monotonic()
    try:
        assert run_hook(tmp_path, text, max_hook_s=60.0).verdict is Verdict.GO
        assert time.monotonic() - started_s < 15
    finally:
        os.kill(wait_for(tmp_path / "pid"), signal.SIGKILL)


@pytest.mark.parametrize("mode", [0o644, 0o000])
def test_a_hook_that_is_not_executable_says_no_and_not_nothing(tmp_path: Path, mode: int) -> None:
    result = run_hook(tmp_path, "exit 0\n", mode=mode)
    assert result.verdict is Verdict.ABORT
    assert "cannot execute" in result.detail


def test_a_point_without_a_file_has_no_hook(tmp_path: Path) -> None:
    write_hook(tmp_path, "exit 0\n")
    hooks = ProcessHooks(tmp_path, lambda _: None, 1.0)
    assert hooks.has(HookPoint.BEFORE_ACTIVATE)
    assert not hooks.has(HookPoint.AFTER_ACTIVATE)
    assert not NoHooks().has(HookPoint.BEFORE_ACTIVATE)
    with pytest.raises(StorageError, match="no hook before-activate"):
        NoHooks().start(CALL)


AGENT = """
import sys, time
from pathlib import Path
from trimtab_agent.hook_rules import HookCall, HookPoint
from trimtab_agent.hooks import ProcessHooks
ProcessHooks(Path(sys.argv[1]), print, 600.0).start(
    HookCall(HookPoint.BEFORE_ACTIVATE, "d1", "digits", "digits@2", "")
)
time.sleep(600)
"""


def test_a_hook_dies_with_an_agent_that_is_killed(tmp_path: Path) -> None:
    write_hook(tmp_path, f"echo $$ > {tmp_path}/pid\nexec sleep 600\n")
    agent = subprocess.Popen([sys.executable, "-c", AGENT, str(tmp_path)])
    try:
        pid = wait_for(tmp_path / "pid")
    finally:
        agent.kill()
        agent.wait()
    wait_for_end(pid)
