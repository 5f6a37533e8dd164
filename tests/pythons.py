"""The agent's and the protocol's unit tests on every Python that the agent supports.

Each Python gets an environment of its own below `.venv-py`, with what a device installs plus the
tools of the tests, and nothing of the compressor or the control plane: a test that needs them fails
here. `PYTHONS` in the environment names interpreters instead of the ones that are looked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
ENVIRONMENTS = HOME / ".venv-py"
VERSIONS = ("3.10", "3.11", "3.13")
TESTS = ("tests/unit/agent", "tests/unit/protocol")
INSTALL = (".[onnx,tflite,agent-test]",)
CONSTRAINTS = ("-c", "constraints.txt")


def main() -> int:
    """Test all of them, then one line for each; 1 if any failed or there was none."""
    named = os.environ.get("PYTHONS", "").split()
    found = [(name, find(name)) for name in named or VERSIONS]
    lines, is_green = [], any(path for _, path in found)
    for name, path in found:
        if path is None:
            is_green = is_green and not named
            lines.append(f"{name}: not on this machine, NOT TESTED")
            continue
        verdict, has_passed = test_on(path)
        is_green = is_green and has_passed
        lines.append(f"{name} ({path}): {verdict}")
    print("\n" + "\n".join(lines), flush=True)
    return 0 if is_green else 1


def find(name: str) -> str | None:
    """The interpreter of a version such as "3.10", or of a path, if it starts."""
    in_pyenv = Path.home().glob(f".pyenv/versions/{name}.*/bin/python") if "/" not in name else ()
    on_path = shutil.which(f"python{name}") or shutil.which(name)
    for candidate in [*sorted(map(str, in_pyenv), reverse=True), on_path]:
        # A shim on PATH may stand for a version that is not installed: it has to start.
        if candidate and version_of(candidate):
            return candidate
    return None


def version_of(python: str) -> str:
    """Such as "3.10.13", or nothing if it does not start."""
    ask = "import platform; print(platform.python_version())"
    try:
        done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def test_on(python: str) -> tuple[str, bool]:
    """Install and run the tests; what to say of it, and whether all is well."""
    version = version_of(python)
    folder = ENVIRONMENTS / version
    print(f"\n=== Python {version}", flush=True)
    # From nothing every time: an environment that was left half made would decide the result.
    subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
    versions = install(folder)
    if versions is None:
        return "FAILED: the agent cannot be installed, see above", False
    started = time.monotonic()
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    command = [str(folder / "bin/python"), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-n", os.environ.get("JOBS", "2"), "--dist", "loadfile", *TESTS]
    code = subprocess.run(command, cwd=HOME, env=environment, check=False).returncode
    took_s = time.monotonic() - started
    verdict = "passed" if code == 0 else f"FAILED (pytest ended with {code})"
    return f"{version}, {verdict} in {took_s:.0f} s, {versions}", code == 0


def install(folder: Path) -> str | None:
    """Install what a device has and the tests' tools; which versions were taken, or None.

    `constraints.txt` was made on one Python; where it cannot be met, the newest versions are taken.
    """
    pip = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    attempts = ((CONSTRAINTS, "versions of constraints.txt"), ((), "newest versions"))
    for options, what in attempts:
        done = subprocess.run(
            [*pip, *options, "-e", *INSTALL], cwd=HOME, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return what
    print(done.stderr, file=sys.stderr)
    return None


if __name__ == "__main__":
    sys.exit(main())
