"""`make bench-compressor`: our post-training quantization beside other tools', on the same files.

Every tool gets the same float ONNX file of an example task, the same calibration samples, and the
same part of the *training* samples to control accuracy with; what it made is judged here, by ONNX
Runtime on the test samples, which no tool has seen. Every tool runs in a virtual environment of its
own under .bench/, which is made when it is first needed. What does not install says why.

    make bench-compressor BENCH="--tasks mnist,speech --tools onnxruntime,trimtab"
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np

from support.model_tables import ModelRow, render_table, replace_block
from trimtab_compressor.agreement import top1_accuracy
from trimtab_compressor.build import Builder
from trimtab_compressor.cache import Cache, default_cache_folder
from trimtab_compressor.evaluate import read_host_cpu
from trimtab_compressor.host_latency import measure_latency
from trimtab_compressor.recipes import BASE_RECIPE, Choice
from trimtab_compressor.runtimes.port import Kernels, fit_samples, run_all
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.task import Task
from trimtab_compressor.task_file import load_task
from trimtab_protocol.errors import TrimtabError
from trimtab_protocol.manifest import ModelFormat

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".bench"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
WORKERS = ROOT / "bench" / "tools"

MAX_DROP = 0.005
CONTROL_SAMPLES = 2000
TOOL_S = 1800.0
COLUMNS = (
    "tool",
    "accuracy, exact",
    "accuracy, this CPU",
    "bytes",
    "latency to fp32",
    "seconds",
    "note",
)


@dataclass(frozen=True)
class Tool:
    """One tool to compare with.

    Args:
        label: In the table.
        worker: File in bench/tools.
        requirements: For pip; empty for this program's own environment.
    """

    label: str
    worker: str
    requirements: tuple[str, ...] = ()


TOOLS = {
    "trimtab": Tool("Trimtab, ladder", "trimtab_ladder.py"),
    "onnxruntime": Tool(
        "ONNX Runtime 1.32.0, static S8S8 QDQ",
        "onnxruntime_default.py",
        ("onnxruntime==1.32.0", "onnx==1.23.2", "numpy==2.4.6", "sympy"),
    ),
    "nncf": Tool(
        "NNCF 3.4.0, accuracy control",
        "nncf_control.py",
        ("nncf==3.4.0", "onnx==1.23.2", "onnxruntime==1.32.0"),
    ),
    "inc": Tool(
        "Intel Neural Compressor for ONNX 1.0, tuning",
        "inc_autotune.py",
        (
            "onnx-neural-compressor==1.0",
            "onnx==1.16.2",
            "onnxruntime==1.18.1",
            "numpy<2",
            "prettytable",
        ),
    ),
}
TASKS = ("mnist", "animals", "text", "speech")


@dataclass(frozen=True)
class Bench:
    """One task with its float file and what its tools are given."""

    task: Task
    base: Path
    folder: Path

    def write_data(self) -> Path:
        """The arrays for the workers: calibration, and training samples to control with."""
        path = self.folder / "data.npz"
        train = self.task.train
        picked = np.random.default_rng(0).permutation(len(train.inputs))[:CONTROL_SAMPLES]
        np.savez(
            path,
            calibration=self.task.calibration,
            inputs=train.inputs[picked],
            labels=train.labels[picked],
        )
        return path


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a worker writes; see bench/tools/worker.py."""

    seconds: float | None
    error: str | None = None
    note: str = ""


def install(name: str, tool: Tool) -> Path | str:
    """Give the Python that runs a tool, or what pip said."""
    if not tool.requirements:
        return Path(sys.executable)
    folder = FOLDER / "venv" / name
    python, ready = folder / "bin" / "python", folder / "ready"
    wanted = "\n".join(tool.requirements)
    if ready.is_file() and ready.read_text() == wanted:
        return python
    print(f"installing {tool.label}…", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *tool.requirements],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        return (errors or done.stderr.strip().splitlines() or ["pip failed"])[0]
    ready.write_text(wanted)
    return python


def run_tool(name: str, tool: Tool, bench: Bench, data: Path) -> ModelRow:
    """Let a tool quantize, and judge what it made."""
    row = ModelRow(label=tool.label, format="onnx")
    python = install(name, tool)
    if isinstance(python, str):
        return replace(row, note=f"does not install: {python}")
    target = bench.folder / f"{name}.onnx"
    target.unlink(missing_ok=True)
    answer = _ask(python, tool, bench, data, target)
    row = replace(row, seconds=answer.seconds)
    if answer.error is not None or not target.is_file():
        return replace(row, note=f"failed: {answer.error}")
    try:
        return judge(replace(row, note=answer.note), target, bench)
    except TrimtabError as error:
        return replace(row, note=f"its file does not run: {error}")


def _ask(python: Path, tool: Tool, bench: Bench, data: Path, target: Path) -> Answer:
    job = target.with_suffix(".json")
    words = {
        "model": str(bench.base),
        "target": str(target),
        "data": str(data),
        "max_drop": MAX_DROP,
    }
    job.write_text(json.dumps(words))
    answer = job.with_suffix(".answer.json")
    answer.unlink(missing_ok=True)
    command = [str(python), str(WORKERS / tool.worker), str(job)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if tool.requirements:
        environment.pop("PYTHONPATH", None)
    with (bench.folder / f"{target.stem}.log").open("w") as log:
        try:
            subprocess.run(
                command, stdout=log, stderr=log, env=environment, timeout=TOOL_S, check=False
            )
        except subprocess.TimeoutExpired:
            return Answer(seconds=TOOL_S, error=f"over {TOOL_S:.0f} s")
    if not answer.is_file():
        return Answer(seconds=None, error=f"it died; see {log.name}")
    return Answer(**json.loads(answer.read_text()))


def judge(row: ModelRow, path: Path, bench: Bench) -> ModelRow:
    """Accuracy on the test samples, size, and latency beside the float file.

    Raises:
        ModelError: The file does not run here.
    """
    task = bench.task
    found = {}
    for kernels in Kernels:
        runner = open_model(path, kernels)
        samples = fit_samples(runner.io, task.test.inputs, what="test samples")
        outputs = run_all(runner, samples)[runner.io.outputs[0].name]
        found[kernels] = top1_accuracy(outputs, task.test.labels)
    return replace(
        row,
        exact=found[Kernels.EXACT],
        on_host=found[Kernels.DEFAULT],
        size_bytes=path.stat().st_size,
        latency=None if row.is_base else measure_latency(path, bench.base, task.calibration[:1]),
    )


def compare(task_name: str, tool_names: Sequence[str]) -> str:
    """One task's section of the document."""
    task = load_task(ROOT / "examples" / task_name / "task.py")
    built = Builder(task, Cache(default_cache_folder()), print).build(
        Choice(BASE_RECIPE, ModelFormat.ONNX)
    )
    folder = FOLDER / "work" / task_name
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(task, built.path, folder)
    data = bench.write_data()
    rows = [judge(ModelRow(label="fp32", format="onnx", is_base=True), built.path, bench)]
    for name in tool_names:
        print(f"{task_name}: {TOOLS[name].label}", flush=True)
        rows.append(run_tool(name, TOOLS[name], bench, data))
    return f"### {task_name}\n\n{render_table(rows, COLUMNS)}\n\n{conclude(rows)}"


def conclude(rows: Sequence[ModelRow]) -> str:
    """Say in words where ours is behind, and where it is not."""
    ours = next((row for row in rows if row.label == TOOLS["trimtab"].label), None)
    if ours is None or ours.exact is None:
        return "Trimtab has no file to compare."
    behind = []
    for row in rows:
        if row is ours or row.is_base or row.exact is None:
            continue
        behind += [f"{what} than {row.label}" for what in _worse(ours, row)]
    if not behind:
        return "Trimtab is behind none of them in a figure of this table."
    return "Trimtab is behind: " + "; ".join(behind) + "."


def _worse(ours: ModelRow, other: ModelRow) -> list[str]:
    """In what ours is behind; latencies whose intervals overlap are alike."""
    found = []
    for what, own, theirs in (
        ("exact", ours.exact, other.exact),
        ("this CPU's", ours.on_host, other.on_host),
    ):
        if own is not None and theirs is not None and own < theirs:
            found.append(f"{100 * (theirs - own):.2f} points lower in {what} accuracy")
    if ours.size_bytes and other.size_bytes and ours.size_bytes > other.size_bytes:
        found.append(f"{ours.size_bytes / other.size_bytes:.2f} times larger")
    if ours.latency and other.latency and ours.latency.low > other.latency.high:
        found.append(f"{ours.latency.ratio / other.latency.ratio:.2f} times slower")
    if ours.seconds and other.seconds and ours.seconds > other.seconds:
        found.append(f"{ours.seconds / other.seconds:.1f} times longer to make")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print and write the document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", default=",".join(TASKS), help="of examples/")
    parser.add_argument("--tools", default=",".join(TOOLS), help=f"of {', '.join(TOOLS)}")
    parser.add_argument("--dry-run", action="store_true", help="leave the document alone")
    chosen = parser.parse_args(arguments)
    sections = []
    for task_name in chosen.tasks.split(","):
        sections.append(compare(task_name, chosen.tools.split(",")))
        print(sections[-1], flush=True)
    heading = (
        f"Measured on {read_host_cpu()}, one thread, Python {platform.python_version()}, "
        f"load {os.getloadavg()[1]:.0f} on {os.cpu_count()} cores. Allowed drop "
        f"{MAX_DROP:.1%}, controlled on {CONTROL_SAMPLES} training samples."
    )
    if not chosen.dry_run:
        content = heading + "\n\n" + "\n\n".join(sections)
        DOCUMENT.write_text(replace_block(DOCUMENT.read_text(), "bench-compressor", content))
        print(f"written: {DOCUMENT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
