"""What every worker of `make bench-compressor` shares: its arguments, its data, its answer.

A worker runs in the virtual environment of its tool, so this knows numpy and ONNX Runtime only.
    python nncf_control.py JOB.json      writes the model named in the job, and JOB.answer.json
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

BATCH = 250


@dataclass(frozen=True)
class Job:
    """What to quantize.

    Args:
        model: Float ONNX file; not to be changed.
        target: Where the result goes.
        calibration: (n, *input shape), float32.
        inputs: What accuracy is controlled with; not the test set. (m, *input shape)
        labels: (m,)
        max_drop: Of accuracy, 0.005 is half a point.
    """

    model: Path
    target: Path
    calibration: np.ndarray[Any, Any]
    inputs: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    max_drop: float

    @property
    def input_name(self) -> str:
        """Of the model's only input."""
        return str(open_session(self.model).get_inputs()[0].name)


def open_session(model: Path | bytes) -> Any:
    """On one thread, with the default optimisation, as a tool's own documentation has it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def measure_accuracy(
    model: Path | bytes, inputs: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]
) -> float:
    """Share of the samples whose first class is right."""
    return float(np.mean(find_hits(model, inputs, labels)))


def find_hits(
    model: Path | bytes, inputs: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]
) -> list[float]:
    """1.0 for each sample whose first class is right, else 0.0."""
    session = open_session(model)
    name = session.get_inputs()[0].name
    hits: list[float] = []
    for start in range(0, len(inputs), BATCH):
        part = slice(start, start + BATCH)
        logits = session.run(None, {name: inputs[part]})[0]
        hits += (logits.argmax(axis=1) == labels[part]).astype(float).tolist()
    return hits


class ArrayReader:
    """Calibration batches in the shape that ONNX Runtime and its kin ask for."""

    def __init__(self, name: str, samples: np.ndarray[Any, Any], batch: int = 50) -> None:
        self._batches = [
            {name: samples[start : start + batch]} for start in range(0, len(samples), batch)
        ]
        self._next = 0

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        """The next batch, or None after the last."""
        self._next += 1
        return self._batches[self._next - 1] if self._next <= len(self._batches) else None

    def rewind(self) -> None:
        """Begin again."""
        self._next = 0


def serve(quantize: Callable[[Job], str]) -> None:
    """Do the job of the command line, and write what came of it.

    Args:
        quantize: Writes `job.target`; returns what the reader should know of how it went.
    """
    path = Path(sys.argv[1])
    words = json.loads(path.read_text())
    arrays = np.load(words["data"])
    job = Job(
        model=Path(words["model"]),
        target=Path(words["target"]),
        calibration=arrays["calibration"],
        inputs=arrays["inputs"],
        labels=arrays["labels"],
        max_drop=words["max_drop"],
    )
    started = time.monotonic()
    try:
        answer: dict[str, object] = {"note": quantize(job), "error": None}
    except Exception as error:  # noqa: BLE001 - whatever a tool raises is its result
        traceback.print_exc()
        last = (str(error).strip() or type(error).__name__).splitlines()[-1]
        answer = {"note": "", "error": f"{type(error).__name__}: {last}"}
    answer["seconds"] = time.monotonic() - started
    path.with_suffix(".answer.json").write_text(json.dumps(answer))
