"""Run a float file on a few samples and look at every tensor on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.learned_ranges import (
    PROBE_SAMPLES,
    Fingerprint,
    LearnedRange,
    match_ranges,
    take_fingerprint,
)
from trimtab_compressor.passes.stage import FileStage, Findings
from trimtab_compressor.runtimes.port import Arrays


def find_onnx_ranges(path: Path, stage: FileStage[Any]) -> dict[str, LearnedRange]:
    """By tensor of an ONNX file, the range that its network was trained with.

    Args:
        path: The float file that will be quantized, with inferred shapes.
        stage: Gives the ranges and the samples.
    """
    if not stage.ranges:
        return {}
    return match_ranges(probe_onnx(path, _probe_samples(stage.calibration)), stage.ranges)


def find_tflite_ranges(path: Path, stage: FileStage[Any]) -> dict[str, LearnedRange]:
    """As `find_onnx_ranges`, for a TFLite file."""
    if not stage.ranges:
        return {}
    return match_ranges(probe_tflite(path, _probe_samples(stage.calibration)), stage.ranges)


def note_ranges(stage: FileStage[Any], used: Mapping[str, LearnedRange]) -> Findings:
    """How many of the network's ranges found their tensor; nothing if it has none."""
    if not stage.ranges:
        return {}
    names = {row.name for row in used.values()}
    return {"learned_ranges": len(stage.ranges), "learned_ranges_used": len(names)}


def probe_onnx(path: Path, samples: Arrays) -> dict[str, Fingerprint]:
    """Fingerprints of the inputs and of every float tensor that an operator gives.

    Args:
        path: With inferred shapes.
        samples: By input name, (n, *input shape).
    """
    import onnx  # noqa: PLC0415 - heavy
    import onnxruntime  # noqa: PLC0415 - heavy

    model = onnx.load(path)
    outputs = {row.name for row in model.graph.output}
    between = [
        row
        for row in model.graph.value_info
        if row.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and row.name not in outputs
    ]
    model.graph.output.extend(between)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [row.name for row in session.get_outputs()]
    count = _count(samples)
    is_free = all(not isinstance(row.shape[0], int) for row in session.get_inputs())
    size = count if is_free else 1
    seen: dict[str, list[AnyArray]] = {name: [] for name in names}
    for start in range(0, count, size):
        batch = {name: rows[start : start + size] for name, rows in samples.items()}
        for name, values in zip(names, session.run(names, batch), strict=True):
            seen[name].append(np.asarray(values).ravel())
    return _describe({**{name: [rows] for name, rows in samples.items()}, **seen}, count)


def probe_tflite(path: Path, samples: Arrays) -> dict[str, Fingerprint]:
    """Fingerprints of every float tensor, those of constants among them.

    Args:
        path: With a batch of 1.
        samples: By input name, (n, *input shape).
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType  # noqa: PLC0415 - heavy

    interpreter = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    inputs = {row["name"]: row["index"] for row in interpreter.get_input_details()}
    tensors = [row for row in interpreter.get_tensor_details() if row["dtype"] is np.float32]
    seen: dict[str, list[AnyArray]] = {row["name"]: [] for row in tensors}
    count = _count(samples)
    for at in range(count):
        for name, rows in samples.items():
            interpreter.set_tensor(inputs[name], rows[at : at + 1])
        interpreter.invoke()
        for row in tensors:
            if row["shape"].all():
                seen[row["name"]].append(interpreter.get_tensor(row["index"]).ravel())
    return _describe(seen, count)


def _probe_samples(calibration: Arrays) -> Arrays:
    return {name: rows[:PROBE_SAMPLES] for name, rows in calibration.items()}


def _count(samples: Arrays) -> int:
    return len(next(iter(samples.values())))


def _describe(seen: dict[str, list[AnyArray]], count: int) -> dict[str, Fingerprint]:
    return {
        name: take_fingerprint(np.concatenate([row.ravel() for row in parts]), count)
        for name, parts in seen.items()
        if parts and parts[0].dtype == np.float32
    }
