"""Accuracy of an exported file, by its own runtime, on the whole test set.

Two figures that are never mixed (ADR 0004):
    exact: the arithmetic as written in the file. ONNX: without graph optimisation, so that
        quantization is computed around float kernels and cannot saturate. TFLite: the reference
        kernels, which define what the format means; XNNPACK may round differently.
    on_host: the default kernels of this host's CPU, which is named beside the figure.
"""

from __future__ import annotations

import platform
from pathlib import Path

from trimtab_compressor.agreement import check_agreement, compare_outputs, top1_accuracy
from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.passes.stage import Validation
from trimtab_compressor.runtimes.port import Kernels, fit_samples, run_all
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.task import Samples
from trimtab_protocol.manifest import Quality

CPU_FILE = Path("/proc/cpuinfo")


def evaluate(path: Path, samples: Samples, *, reference: AnyArray, is_quantized: bool) -> Quality:
    """Judge one file; `base` is left open.

    Args:
        path: .onnx or .tflite.
        samples: The whole test set.
        reference: Outputs of the float network for the first samples, (m, classes) with m <= n.
        is_quantized: Whether some loss is expected.

    Raises:
        ModelError: The file does not load, does not run, or does not compute its network.
    """
    exact = _outputs(path, samples, Kernels.EXACT)
    check_agreement(compare_outputs(exact[: len(reference)], reference), is_quantized=is_quantized)
    on_host = _outputs(path, samples, Kernels.DEFAULT)
    return Quality(
        samples=len(samples.labels),
        exact=top1_accuracy(exact, samples.labels),
        on_host=top1_accuracy(on_host, samples.labels),
        host_cpu=read_host_cpu(),
    )


def measure_accuracy(path: Path, validation: Validation) -> float:
    """Exact accuracy of a file in the middle of a pass; without labels, its agreement with the float model.

    Raises:
        ModelError: The file does not load or does not run.
    """
    runner = open_model(path, Kernels.EXACT)
    found = run_all(runner, validation.inputs)[runner.io.outputs[0].name]
    labels = validation.labels if validation.labels is not None else validation.reference.argmax(-1)
    return top1_accuracy(found, labels)


def _outputs(path: Path, samples: Samples, kernels: Kernels) -> AnyArray:
    runner = open_model(path, kernels)
    inputs = fit_samples(runner.io, samples.inputs, what="test samples")
    return run_all(runner, inputs)[runner.io.outputs[0].name]


def read_host_cpu(cpu_file: Path = CPU_FILE) -> str:
    """Name of this host's CPU, as the kernel gives it."""
    if cpu_file.is_file():
        for line in cpu_file.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
