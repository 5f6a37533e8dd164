"""Ways to find a model's median latency, each in fresh processes, for benchmarks that compare them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Timer = Callable[[], float]
"""Measures once; gives milliseconds."""

WARM_UP_S = 1.0
PLAIN_LOOP = Path(__file__).with_name("plain_loop.py")


def agent_p50_ms(path: Path, *, processes: int, seconds: float) -> Timer:
    """As `trimtab-agent measure` finds it: the command that a person would give."""
    command = [
        *(sys.executable, "-m", "trimtab_agent.cli", "measure", str(path), "--json"),
        *("--threads", "1", "--processes", str(processes), "--seconds", str(seconds)),
    ]

    def time_once() -> float:
        p50 = json.loads(_output(command))["latency"]["p50_ms"]
        if p50["value"] is None:
            raise RuntimeError(f"the agent gives no p50 of {path.name}: {p50['absent']}")
        return float(p50["value"])

    return time_once


def plain_p50_ms(path: Path, seconds: float) -> Timer:
    """As anybody would measure it: a loop around the call."""
    command = [sys.executable, str(PLAIN_LOOP), str(path), str(seconds), str(WARM_UP_S)]
    return lambda: float(json.loads(_output(command))["p50_ms"])


def find_litert_tool() -> str | None:
    """The benchmark that comes with ai-edge-litert, beside this Python; None for none."""
    return shutil.which("litert-benchmark", path=str(Path(sys.executable).parent))


@dataclass(frozen=True)
class LitertTool:
    """`litert-benchmark`, told how many runs fill the same time. It gives two decimals.

    Args:
        tool: Its path.
        path: A .tflite file.
        seconds: Timed seconds.
        p50_ms: About how long one run takes.
    """

    tool: str
    path: Path
    seconds: float
    p50_ms: float

    def __call__(self) -> float:
        """Measure once; milliseconds."""
        runs = max(20, round(self.seconds * 1000 / self.p50_ms))
        warm_up_runs = max(20, round(WARM_UP_S * 1000 / self.p50_ms))
        with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
            result = Path(name) / "result.json"
            _output([
                *(self.tool, f"--model={self.path}", "--num_threads=1", f"--num_runs={runs}"),
                *(f"--warmup_runs={warm_up_runs}", f"--result_json={result}"),
            ])  # fmt: skip
            return float(json.loads(result.read_text())["latency"]["median_ms"])


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = " ".join(done.stderr.split())[-400:]
        raise RuntimeError(f"{' '.join(command[:4])} … ended with code {done.returncode}: {tail}")
    return done.stdout
