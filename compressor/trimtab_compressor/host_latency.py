"""How fast a model file is on this host, against another file: one thread, in turns.

Rules:
    1. The two are run in short blocks that alternate, and the order turns with every round, so that
       what else this machine does strikes both. A round gives one ratio of the two medians.
    2. Every session is loaded anew several times, because where memory lies moves a model's time by
       several per cent for as long as it is loaded.
    3. The interval is a bootstrap over sessions and their rounds (Efron and Tibshirani 1993, ch. 8:
       draw clusters, then within them). A host's latency says nothing about a device's.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.runtimes.table import format_of
from trimtab_compressor.threads import thread_count
from trimtab_protocol.manifest import ModelFormat

Infer: TypeAlias = Callable[[], object]
"""One inference of a loaded model on inputs that are already there."""

DRAWS = 2000
COVERAGE = 0.95


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Args:
        sessions: How often both models are loaded.
        rounds: Pairs of blocks per session.
        block_s: How long a block runs, at least `least_runs` inferences.
        least_runs: Of a block.
    """

    sessions: int = 5
    rounds: int = 12
    block_s: float = 0.02
    least_runs: int = 5


@dataclass(frozen=True)
class HostLatency:
    """What one file takes beside another.

    Args:
        p50_ms: Median over all rounds of the file.
        base_p50_ms: The same of the other file, in the same rounds.
        ratio: Of the file to the other, median over the rounds; below 1 is faster.
        low: End of the 95 % interval of the ratio.
        high: Its other end.
    """

    p50_ms: float
    base_p50_ms: float
    ratio: float
    low: float
    high: float


Rounds: TypeAlias = Sequence[Sequence[tuple[float, float]]]
"""By session, by round: milliseconds of the file and of the base."""


def measure_latency(
    path: Path,
    base: Path,
    sample: Mapping[str, AnyArray] | AnyArray,
    effort: Effort | None = None,
    base_sample: Mapping[str, AnyArray] | AnyArray | None = None,
) -> HostLatency:
    """Run two files in turns, one sample at a time.

    Args:
        path: .onnx or .tflite.
        base: The file to compare with; of either format.
        sample: (1, *input shape), or by input name.
        effort: None for the default.
        base_sample: As `sample`, for the other file; None if both take the same.

    Raises:
        ModelError: A file does not load.
    """
    effort = effort or Effort()
    rounds = []
    for _session in range(effort.sessions):
        infer = bind(path, sample)
        infer_base = bind(base, sample if base_sample is None else base_sample)
        counts = _count_runs(infer, effort), _count_runs(infer_base, effort)
        rounds.append(_measure_session((infer, infer_base), counts, effort.rounds))
        del infer, infer_base
        gc.collect()
    return summarize(rounds)


def summarize(rounds: Rounds, seed: int = 0) -> HostLatency:
    """Ratio and interval of measured rounds.

    Args:
        rounds: At least one session with at least one round.
        seed: Of the bootstrap's draws.
    """
    pairs = [pair for session in rounds for pair in session]
    ratios = [np.array([own / base for own, base in session]) for session in rounds]
    random = np.random.default_rng(seed)
    drawn = np.array([_draw_median(ratios, random) for _ in range(DRAWS)])
    low, high = np.quantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return HostLatency(
        p50_ms=float(np.median([own for own, _ in pairs])),
        base_p50_ms=float(np.median([base for _, base in pairs])),
        ratio=float(np.median(np.concatenate(ratios))),
        low=float(low),
        high=float(high),
    )


def bind(path: Path, sample: Mapping[str, AnyArray] | AnyArray) -> Infer:
    """Load a file, and give one inference on the sample with nothing around it.

    Raises:
        ModelError: `model.unreadable`: the runtime cannot load it.
    """
    return _BINDERS[format_of(path)](path, sample)


def _bind_onnx(path: Path, sample: Mapping[str, AnyArray] | AnyArray) -> Infer:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: PLC0415 - heavy

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = thread_count()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [row.name for row in session.get_inputs()]
    inputs = _name(sample, names)
    return lambda: session.run(None, inputs)


def _bind_tflite(path: Path, sample: Mapping[str, AnyArray] | AnyArray) -> Infer:
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - heavy

    from trimtab_compressor.quiet import quiet  # noqa: PLC0415

    with quiet():
        interpreter = Interpreter(str(path), num_threads=thread_count())
        interpreter.allocate_tensors()
    details = interpreter.get_input_details()
    inputs = _name(sample, [row["name"] for row in details])
    output = interpreter.get_output_details()[0]["index"]

    def infer() -> object:
        for row in details:
            interpreter.set_tensor(row["index"], inputs[row["name"]])
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return infer


_BINDERS: dict[ModelFormat, Callable[[Path, Mapping[str, AnyArray] | AnyArray], Infer]] = {
    ModelFormat.ONNX: _bind_onnx,
    ModelFormat.TFLITE: _bind_tflite,
}


def _name(sample: Mapping[str, AnyArray] | AnyArray, names: Sequence[str]) -> dict[str, AnyArray]:
    """The arrays by the names of the file; one array alone is its only input."""
    return dict(sample) if isinstance(sample, Mapping) else {names[0]: sample}


def _count_runs(infer: Infer, effort: Effort) -> int:
    """Inferences that fill a block, found while warming up."""
    runs, started = 0, time.perf_counter()
    while runs < effort.least_runs or time.perf_counter() - started < 2 * effort.block_s:
        infer()
        runs += 1
    return max(effort.least_runs, runs // 2)


def _measure_session(
    infers: tuple[Infer, Infer], counts: tuple[int, int], rounds: int
) -> list[tuple[float, float]]:
    measured = []
    for number in range(rounds):
        first = number % 2
        found = {index: _time_block(infers[index], counts[index]) for index in (first, 1 - first)}
        measured.append((found[0], found[1]))
    return measured


def _time_block(infer: Infer, runs: int) -> float:
    """Median time of one inference in milliseconds."""
    times = np.empty(runs)
    for run in range(runs):
        started = time.perf_counter()
        infer()
        times[run] = time.perf_counter() - started
    return float(np.median(times)) * 1000


def _draw_median(ratios: Sequence[AnyArray], random: np.random.Generator) -> float:
    sessions = random.integers(0, len(ratios), len(ratios))
    drawn = [random.choice(ratios[index], len(ratios[index])) for index in sessions]
    return float(np.median(np.concatenate(drawn)))
