"""Judge networks and exported files on the whole test set.

A file is run by its own runtime, and two figures are never mixed (ADR 0004):
    exact: the arithmetic as written in the file. ONNX: without graph optimisation, so that
        quantization is computed around float kernels and cannot saturate. TFLite: the reference
        kernels, which define what the format means; XNNPACK may round differently.
    on_host: the default kernels of this host's CPU, which is named beside the figure.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from trimtab_compressor.agreement import (
    compare_outputs,
    score,
)
from trimtab_compressor.arrays import AnyArray, IntArray
from trimtab_compressor.judgement import FileJudgement
from trimtab_compressor.passes.stage import Validation
from trimtab_compressor.runtimes.port import Arrays, Kernels, fit_samples, run_all
from trimtab_compressor.runtimes.table import open_model
from trimtab_protocol.manifest import Quality

CPU_FILE = Path("/proc/cpuinfo")


def judge_file(
    path: Path,
    inputs: Arrays | AnyArray,
    labels: IntArray | None,
    reference: Sequence[AnyArray],
) -> FileJudgement:
    """Judge one file, without refusing it.

    Args:
        path: .onnx or .tflite.
        inputs: The whole test set, by input name or one array; (n, *input shape).
        labels: (n,); None to be judged by the agreement with the float model.
        reference: Outputs of the float model for all of them, in the model's order.

    Raises:
        ModelError: The file does not load or run, or its outputs are not finite.
    """
    exact = run_file(path, inputs, Kernels.EXACT)
    metric, exact_score = score(exact, reference, labels)
    on_host = run_file(path, inputs, Kernels.DEFAULT)
    return FileJudgement(
        quality=Quality(
            metric=metric,
            samples=len(exact[0]),
            exact=exact_score,
            on_host=score(on_host, reference, labels)[1],
            host_cpu=read_host_cpu(),
        ),
        agreements=tuple(compare_outputs(*pair) for pair in zip(exact, reference, strict=True)),
        size_bytes=path.stat().st_size,
    )


def run_file(path: Path, inputs: Arrays | AnyArray, kernels: Kernels) -> tuple[AnyArray, ...]:
    """All outputs of a file for any number of samples, in the model's order.

    Raises:
        ModelError: The file does not load or does not run.
        ConfigError: The samples do not fit.
    """
    runner = open_model(path, kernels)
    found = run_all(runner, fit_samples(runner.io, inputs, what="test samples"))
    return tuple(found[spec.name] for spec in runner.io.outputs)


def measure_accuracy(path: Path, validation: Validation) -> float:
    """Exact score of a file in the middle of a pass: accuracy, or agreement where there are no labels.

    Raises:
        ModelError: The file does not load or does not run.
    """
    runner = open_model(path, Kernels.EXACT)
    found = run_all(runner, validation.inputs)[runner.io.outputs[0].name]
    return score([found], [validation.reference], validation.labels)[1]


def read_host_cpu(cpu_file: Path = CPU_FILE) -> str:
    """Name of this host's CPU, as the kernel gives it."""
    if cpu_file.is_file():
        for line in cpu_file.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
