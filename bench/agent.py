"""`make bench-agent`: is what the agent measures right, and what does the agent itself cost?

    agreement       p50 of `trimtab-agent measure` against a plain timing loop, and for TFLite against
                    LiteRT's own `litert-benchmark`: one fresh process of each per round, in turn
    repeatability   two whole measurements of one file, pair by pair; beside it how well the plain loop
                    repeats itself, which is what the machine allows
    footprint       a real `trimtab-agent run`, connected to a real mosquitto and idle

The two models are grown from a seed. About 30 minutes; nothing else should run meanwhile.

    make bench-agent BENCH="--pairs 2 --idle-s 20"    rougher, in three minutes
    make bench-agent BENCH=--json                     everything, raw times too, as JSON

It is a benchmark, no test: a target that is not met is printed, and the exit code is 0; 1 if something
could not be timed at all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.bench_figures import (
    Figure,
    agreement_figure,
    complain,
    differences,
    limit_figure,
    ratio_of_medians,
    render,
    repeat_figure,
    side_by_side,
)
from support.bench_timers import LitertTool, Timer, agent_p50_ms, find_litert_tool, plain_p50_ms
from support.brokers import find_mosquitto
from support.grown_models import grow_onnx, grow_tflite
from support.idle_process import MachineUse, watch_machine
from support.resident_bench import Resident, watch_resident
from trimtab_agent.hardware import read_hardware

MB = 1e6
PLAIN_RATIO, TOOL_RATIO, REPEAT_RATIO = 0.03, 0.05, 0.03
PSS_BYTES, CPU_SHARE, START_S = 28 * MB, 0.003, 1.0


@dataclass(frozen=True)
class Compared:
    """Two ways to time one model, or one way twice: a time in milliseconds per round and way."""

    label: str
    firsts_ms: list[float]
    seconds_ms: list[float]

    @property
    def note(self) -> str:
        """Both medians and how often."""
        one, other = statistics.median(self.firsts_ms), statistics.median(self.seconds_ms)
        return f"{one:.3f} ms and {other:.3f} ms, {len(self.firsts_ms)} rounds"


def in_turn(label: str, first: Timer, second: Timer, rounds: int) -> Compared:
    """Both, again and again, each as often first as second, so that a drift hits both."""
    firsts, seconds = [], []
    for number in range(rounds):
        if number % 2 == 0:
            firsts.append(first())
            seconds.append(second())
        else:
            seconds.append(second())
            firsts.append(first())
        _say(f"  {label}: {firsts[-1]:.3f} ms, {seconds[-1]:.3f} ms")
    return Compared(label, firsts, seconds)


def compare_timers(folder: Path, options: argparse.Namespace) -> tuple[list[Compared], str]:
    """The agent's one process against others; and why LiteRT's tool is missing, if it is."""
    onnx, tflite = folder / "grown.onnx", folder / "grown.tflite"
    seconds, rounds = options.seconds, options.pairs
    found = [
        in_turn(
            f"agent / plain loop, {path.suffix[1:]}",
            agent_p50_ms(path, processes=1, seconds=seconds),
            plain_p50_ms(path, seconds),
            rounds,
        )
        for path in (onnx, tflite)
    ]
    tool = find_litert_tool()
    if tool is None:
        return found, "this ai-edge-litert comes without litert-benchmark"
    timer = LitertTool(tool, tflite, seconds, p50_ms=found[1].seconds_ms[0])
    ours = agent_p50_ms(tflite, processes=1, seconds=seconds)
    return [*found, in_turn("agent / litert-benchmark, tflite", ours, timer, rounds)], ""


def repeat_measurements(folder: Path, options: argparse.Namespace) -> list[Compared]:
    """The same whole measurement twice."""
    found = []
    for suffix in ("onnx", "tflite"):
        whole = agent_p50_ms(folder / f"grown.{suffix}", processes=5, seconds=options.seconds)
        label = f"two whole measurements, {suffix}"
        found.append(in_turn(label, whole, whole, options.pairs))
    return found


def judge_latency(compared: list[Compared], absent: str, repeated: list[Compared]) -> list[Figure]:
    """Agreement and repeatability as lines."""
    figures = []
    for row in compared:
        within = TOOL_RATIO if "litert-benchmark" in row.label else PLAIN_RATIO
        ratio = ratio_of_medians(row.firsts_ms, row.seconds_ms)
        figures.append(agreement_figure(row.label, ratio, within, row.note))
    if absent:
        figures.append(Figure("agent / litert-benchmark, tflite", "absent", note=absent))
    figures.append(
        Figure(
            "agent / ONNX Runtime's own tool",
            "absent",
            note="the onnxruntime package has no benchmark tool",
        )
    )
    for row in repeated:
        found = differences(list(zip(row.firsts_ms, row.seconds_ms, strict=True)))
        figures.append(repeat_figure(row.label, found, REPEAT_RATIO, row.note))
    for row in repeat_plain_loops(compared):
        found = differences(side_by_side(row.seconds_ms))
        label = f"two plain loops, {row.label.rsplit(' ', 1)[1]}"
        figures.append(
            repeat_figure(label, found, None, "one process each: what the machine allows")
        )
    return figures


def repeat_plain_loops(compared: list[Compared]) -> list[Compared]:
    """Where a plain loop ran often enough to be compared with itself."""
    return [row for row in compared if "plain loop" in row.label and len(row.seconds_ms) > 1]


def judge_resident(found: Resident) -> list[Figure]:
    """The resident process as lines."""
    idle, fresh = found.idle, found.starts
    forbidden = ", ".join(idle.forbidden) or "none"
    return [
        limit_figure("PSS, connected and idle", idle.pss_bytes / MB, PSS_BYTES / MB),
        limit_figure("USS", idle.uss_bytes / MB, None, note="what would be free if it ended"),
        limit_figure("RSS", idle.rss_bytes / MB, None, note="PSS where no other Python runs"),
        limit_figure(
            f"CPU over {idle.seconds:.0f} s, of one core",
            idle.cpu_share * 100,
            CPU_SHARE * 100,
            "{:.3f} %",
            f"{idle.wake_ups_per_s:.1f} wake-ups a second, {idle.threads} threads",
        ),
        Figure("numpy or a runtime in it", forbidden, "none", not idle.forbidden),
        limit_figure(
            f"start to connected, median of {len(fresh.connected_s)}",
            fresh.median_s,
            START_S,
            "{:.2f} s",
            f"python {fresh.python_s:.2f} s, imports {fresh.imports_s:.2f} s, "
            f"settings and connection {fresh.rest_s:.2f} s",
        ),
        limit_figure(
            "PSS after one update", found.updated_pss_bytes / MB, None, note="no target: for scale"
        ),
    ]


def describe_machine() -> dict[str, object]:
    """What decides the figures, and nothing of the moment but the load."""
    facts = read_hardware()
    return {
        "cpu": facts.cpu,
        "cores": facts.cores,
        "machine": facts.machine,
        "kernel": facts.kernel,
        "python": sys.version.split()[0],
        "memory_total_bytes": facts.memory_total_bytes,
        "load_average_1m": os.getloadavg()[0],
    }


def run(options: argparse.Namespace) -> tuple[list[Figure], tuple[str, ...], dict[str, object]]:
    """Everything, in an order in which nothing heats the machine for what follows it."""
    machine = describe_machine()
    before = watch_machine()
    with tempfile.TemporaryDirectory(prefix="trimtab-bench-") as name:
        folder = Path(name)
        (folder / "grown.onnx").write_bytes(grow_onnx())
        (folder / "grown.tflite").write_bytes(grow_tflite())
        resident = watch_resident(folder, options.starts, options.idle_s)
        compared, absent = compare_timers(folder, options)
        repeated = repeat_measurements(folder, options)
    use: MachineUse = watch_machine().since(before)
    load = machine["load_average_1m"]
    assert isinstance(load, float)
    loops = repeat_plain_loops(compared)
    repeats = [differences(side_by_side(row.seconds_ms)).value for row in loops]
    complaints = complain(load, use.others_cores, use.steal_ratio, repeats)
    figures = [*judge_latency(compared, absent, repeated), *judge_resident(resident)]
    raw: dict[str, object] = {
        "machine": machine,
        "complaints": complaints,
        "use": asdict(use),
        "figures": [asdict(row) for row in figures],
        "compared": [asdict(row) for row in (*compared, *repeated)],
        "resident": asdict(resident),
    }
    return figures, complaints, raw


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The agent's accuracy and footprint.")
    parser.add_argument("--pairs", type=int, default=10, help="rounds of each comparison")
    parser.add_argument("--seconds", type=float, default=2.0, help="timed seconds per process")
    parser.add_argument("--starts", type=int, default=10, help="starts of the resident")
    parser.add_argument("--idle-s", type=float, default=300.0, help="seconds to watch it idle")
    parser.add_argument("--json", action="store_true", help="everything as JSON, with raw times")
    options = parser.parse_args()
    if find_mosquitto() is None:
        print("error: this benchmark needs mosquitto (apt install mosquitto)", file=sys.stderr)
        return 2
    try:
        figures, complaints, raw = run(options)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(raw, indent=2))
        return 0
    facts = raw["machine"]
    assert isinstance(facts, dict)
    print(
        f"{facts['cpu']}, {facts['cores']} cores, {facts['machine']}, Python {facts['python']}, "
        f"load average {facts['load_average_1m']:.2f} at the start"
    )
    print(render(figures, complaints))
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
