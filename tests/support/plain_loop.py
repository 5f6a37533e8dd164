"""The yardstick: one model timed as anybody would do it, with nothing of ours.

    python plain_loop.py MODEL SECONDS WARM_UP_SECONDS

Started as a process of its own; prints one line of JSON: the median in milliseconds and how many
runs it is of. One thread, random inputs from a fixed seed.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy


def load_onnx(path: str) -> Callable[[], object]:
    """A session, as ONNX Runtime's documentation makes one."""
    import onnxruntime  # noqa: PLC0415 - only one of the two is needed

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    row = session.get_inputs()[0]
    feeds = {row.name: numpy.random.default_rng(0).random(row.shape).astype(numpy.float32)}
    return lambda: session.run(None, feeds)


def load_tflite(path: str) -> Callable[[], object]:
    """An interpreter, as LiteRT's documentation makes one."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    row = interpreter.get_input_details()[0]
    values = numpy.random.default_rng(0).random(row["shape"]).astype(numpy.float32)
    interpreter.set_tensor(row["index"], values)
    invoke: Callable[[], object] = interpreter.invoke
    return invoke


def time_runs(infer: Callable[[], object], seconds: float) -> list[int]:
    """Nanoseconds of each run, back to back, for so long."""
    samples = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter_ns()
        infer()
        samples.append(time.perf_counter_ns() - began)
    return samples


def main(model: str, seconds: str, warm_up_s: str) -> None:
    """Load, warm up, time, print."""
    infer = (load_onnx if Path(model).suffix == ".onnx" else load_tflite)(model)
    time_runs(infer, float(warm_up_s))
    samples = time_runs(infer, float(seconds))
    print(json.dumps({"p50_ms": statistics.median(samples) / 1e6, "runs": len(samples)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
