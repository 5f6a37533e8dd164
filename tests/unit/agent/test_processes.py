"""Starting child processes so that none outlives its purpose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from trimtab_agent.processes import kill_group, read_tail, start_module

ORPHAN = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())])
print(child.pid, flush=True)
time.sleep(60)
"""
DEPENDENT = """
import sys, time
from trimtab_agent.processes import die_with_parent
die_with_parent(int(sys.argv[1]))
print("ready", flush=True)
time.sleep(60)
"""


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pid: int) -> None:
    until = time.monotonic() + 10
    while not is_gone(pid):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_child_dies_with_its_parent_even_by_kill_9() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, DEPENDENT], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert parent.stdout.readline() == "ready\n"
    assert not is_gone(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until_gone(child)


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", DEPENDENT, "1"], timeout=20, check=False)
    assert done.returncode == 1


def test_killing_a_group_takes_what_the_child_started(tmp_path: Path) -> None:
    script = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    kill_group(process)  # type: ignore[arg-type]  # of text instead of bytes, which it never reads
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    wait_until_gone(grandchild)


def test_killing_one_that_ended_by_itself_is_no_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], start_new_session=True)
    process.wait()
    kill_group(process)
    assert process.returncode == 0


def test_a_module_runs_in_its_own_group_and_its_words_go_to_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "spoken.py"
    module.write_text(
        "import os, sys, tempfile\n"
        "print(os.getpgrp() == os.getpid(), 'PYTHONSTARTUP' in os.environ, sys.stdin.read())\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'], tempfile.gettempdir(), sys.argv[1:])\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    process = start_module("spoken", ["a", "b"], stderr_path=tmp_path / "out")
    assert process.wait(20) == 0
    assert (tmp_path / "out").read_text() == f"True False \n1 {tmp_path} ['a', 'b']\n"


def test_the_tail_is_the_end_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"first\n" * 200 + b"the  last\n\xff\n")
    tail = read_tail(tmp_path / "out", limit=20)
    assert tail.endswith("the last �")
    assert len(tail) == 20
    assert read_tail(tmp_path / "none") == ""
