"""Compare two model files on the same inputs.

Rules:
    1. Outputs are compared twice: by the arithmetic as written in the files, and by this CPU's
       default kernels (ADR 0004). Accuracy likewise, where there are labels.
    2. Integers at an input or output are turned into real numbers and back by the scale that stands
       in the file, as an application must.
    3. Without data, inputs are seeded noise, and the report says so: on noise the outputs of two
       good models may differ more than they do on real samples, or less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab_compressor.agreement import answers, top1_accuracy
from trimtab_compressor.arrays import AnyArray, IntArray
from trimtab_compressor.comparison.errors import report_output
from trimtab_compressor.comparison.layout import BACK, Layout, find_layout, move_array
from trimtab_compressor.comparison.report import (
    Comparison,
    LatencyReport,
    OutputReport,
    SideReport,
)
from trimtab_compressor.comparison.sides import report_side
from trimtab_compressor.evaluate import read_host_cpu
from trimtab_compressor.host_latency import measure_latency
from trimtab_compressor.inspection.graph import Affine
from trimtab_compressor.inspection.inspect_model import Shapes, describe_file, read_graph
from trimtab_compressor.inspection.running import seeded_inputs
from trimtab_compressor.inspection.weights import dequantize
from trimtab_compressor.runtimes.port import Arrays, Kernels, Runner, fit_samples, run_all
from trimtab_compressor.runtimes.table import open_model
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import TensorSpec
from trimtab_protocol.reading import Interval, Reading

NOISE_SAMPLES = 16


@dataclass(frozen=True)
class Inputs:
    """What both files are run on, in real numbers and in the layout of A.

    Args:
        arrays: By A's input names, (n, *input shape).
        labels: (n,), or None.
        source: Where they come from, for the report.
    """

    arrays: Arrays
    labels: IntArray | None
    source: str


@dataclass(frozen=True)
class Side:
    """One file, with the scales of its integers."""

    path: Path
    affines: Mapping[str, Affine]

    @classmethod
    def of(cls, path: Path) -> Side:
        """Read the scales that stand in a file.

        Raises:
            ModelError: The file cannot be read.
        """
        tensors = read_graph(path).tensors
        return cls(path, {name: row.affine for name, row in tensors.items() if row.affine})

    def store(self, spec: TensorSpec, rows: AnyArray) -> AnyArray:
        """Real numbers as the file takes them."""
        affine = self.affines.get(spec.name)
        if rows.dtype.kind != "f" or np.dtype(spec.dtype).kind == "f" or affine is None:
            return rows
        limits = np.iinfo(spec.dtype)
        steps = np.round(rows / affine.scale[0]) + affine.zero_point[0]
        return np.asarray(np.clip(steps, limits.min, limits.max)).astype(spec.dtype)

    def read(self, name: str, rows: AnyArray) -> AnyArray:
        """What the file gives as real numbers."""
        affine = self.affines.get(name)
        return rows if rows.dtype.kind == "f" or affine is None else dequantize(rows, affine)


@dataclass(frozen=True)
class _Pair:
    """Two files whose inputs and outputs are matched."""

    a: Side
    b: Side
    inputs: tuple[tuple[TensorSpec, TensorSpec, Layout], ...]
    outputs: tuple[tuple[TensorSpec, TensorSpec, Layout], ...]


def noise_inputs(path: Path, shapes: Shapes) -> Inputs:
    """Seeded inputs for a file that no data were given for.

    Raises:
        ConfigError: An axis other than the first is free.
    """
    runner = open_model(path, Kernels.DEFAULT)
    sizes = {}
    for spec in runner.io.inputs:
        shape = shapes.get(spec.name, spec.shape)
        sample = [size for size in shape[1:] if size is not None]
        if len(sample) != len(shape) - 1:
            raise ConfigError(f"input '{spec.name}' leaves axes free; give --data or --shape")
        sizes[spec.name] = (NOISE_SAMPLES, *sample)
    side = Side.of(path)
    arrays = {name: side.read(name, rows) for name, rows in seeded_inputs(runner, sizes).items()}
    return Inputs(arrays, None, "seeded noise, for want of data: it says little about real samples")


def compare_files(
    a: Path, b: Path, inputs: Inputs, *, layout: Layout | None = None, shapes: Shapes | None = None
) -> Comparison:
    """Run both, and put them side by side.

    Args:
        a: What B is compared with.
        b: Usually the compressed one.
        inputs: For both.
        layout: How B's images are made of A's; None to find out.
        shapes: Of A's ONNX inputs whose axes are free, to count its work.

    Raises:
        ConfigError: The files do not take and give the same tensors.
        ModelError: A file cannot be read or does not run.
    """
    pair = match_files(a, b, layout)
    outputs: list[OutputReport] = []
    accuracies: dict[Kernels, tuple[Reading, Reading]] = {}
    for kernels in Kernels:
        rows_a, rows_b = _run_pair(pair, inputs.arrays, kernels)
        accuracies[kernels] = _score(rows_a[0], inputs.labels), _score(rows_b[0], inputs.labels)
        outputs += [
            report_output(one, other, (spec_a.name, spec_b.name), kernels)
            for one, other, (spec_a, spec_b, _) in zip(rows_a, rows_b, pair.outputs, strict=True)
        ]
    fed = inputs_of_a(pair, inputs.arrays), inputs_of_b(pair, inputs.arrays)
    side_a, side_b = (
        _report_side(path, arrays, exact, on_host, shapes or {})
        for path, arrays, exact, on_host in zip(
            (a, b), fed, accuracies[Kernels.EXACT], accuracies[Kernels.DEFAULT], strict=True
        )
    )
    return Comparison(
        a=side_a,
        b=side_b,
        data=inputs.source,
        samples=len(next(iter(inputs.arrays.values()))),
        layout=pair.inputs[0][2].value,
        size_ratio=b.stat().st_size / a.stat().st_size,
        outputs=tuple(outputs),
    )


def match_files(a: Path, b: Path, layout: Layout | None) -> _Pair:
    """Inputs and outputs in pairs, in the order of the files.

    Raises:
        ConfigError: They do not fit.
        ModelError: A file cannot be read.
    """
    io_a, io_b = open_model(a, Kernels.DEFAULT).io, open_model(b, Kernels.DEFAULT).io
    matched = []
    for what, ones, others in (
        ("inputs", io_a.inputs, io_b.inputs),
        ("outputs", io_a.outputs, io_b.outputs),
    ):
        if len(ones) != len(others):
            raise ConfigError(
                f"{a.name} has {len(ones)} {what}, {b.name} has {len(others)}; only files that take and "
                "give the same can be compared"
            )
        matched.append(
            tuple(
                (
                    one,
                    other,
                    find_layout(one, other, asked=layout, are_formats_mixed=a.suffix != b.suffix),
                )
                for one, other in zip(ones, others, strict=True)
            )
        )
    return _Pair(Side.of(a), Side.of(b), matched[0], matched[1])


def inputs_of_b(pair: _Pair, arrays: Arrays) -> dict[str, AnyArray]:
    """A's inputs as B takes them."""
    return {
        other.name: pair.b.store(other, move_array(arrays[one.name], layout))
        for one, other, layout in pair.inputs
    }


def inputs_of_a(pair: _Pair, arrays: Arrays) -> dict[str, AnyArray]:
    """Real numbers as A takes them."""
    return {one.name: pair.a.store(one, arrays[one.name]) for one, _, _ in pair.inputs}


def _run_pair(
    pair: _Pair, arrays: Arrays, kernels: Kernels
) -> tuple[list[AnyArray], list[AnyArray]]:
    """Outputs of both in the order of A, in real numbers and in the layout of A."""
    found_a = _run(open_model(pair.a.path, kernels), inputs_of_a(pair, arrays))
    found_b = _run(open_model(pair.b.path, kernels), inputs_of_b(pair, arrays))
    rows_a = [pair.a.read(one.name, found_a[one.name]) for one, _, _ in pair.outputs]
    rows_b = [
        move_array(pair.b.read(other.name, found_b[other.name]), BACK.get(layout, layout))
        for _, other, layout in pair.outputs
    ]
    return rows_a, rows_b


def _run(runner: Runner, arrays: Arrays) -> dict[str, AnyArray]:
    return run_all(runner, fit_samples(runner.io, arrays, what="inputs"))


def _score(rows: AnyArray, labels: IntArray | None) -> Reading:
    if labels is None:
        return Reading(absent="no labels were given")
    if answers(rows) is None:
        return Reading(absent="the first output is no row of scores")
    return Reading(value=top1_accuracy(rows, labels))


def _report_side(
    path: Path, fed: Arrays, exact: Reading, on_host: Reading, shapes: Shapes
) -> SideReport:
    """Work is counted for one sample of the size that was run."""
    sizes: Shapes = {}
    if path.suffix == ".onnx":
        for spec in open_model(path, Kernels.DEFAULT).io.inputs:
            if None in spec.shape[1:]:
                sizes[spec.name] = shapes.get(spec.name, (1, *fed[spec.name].shape[1:]))
    return report_side(describe_file(path, sizes), exact, on_host)


def compare_latency(a: Path, b: Path, inputs: Inputs, layout: Layout | None) -> LatencyReport:
    """B's latency over A's on this host, one sample at a time, in turns.

    Raises:
        ConfigError: The files do not take and give the same tensors.
        ModelError: A file cannot be read or does not run.
    """
    pair = match_files(a, b, layout)
    first = {name: rows[:1] for name, rows in inputs.arrays.items()}
    found = measure_latency(b, a, inputs_of_b(pair, first), base_sample=inputs_of_a(pair, first))
    return LatencyReport(
        a_p50_ms=found.base_p50_ms,
        b_p50_ms=found.p50_ms,
        ratio=Reading(value=found.ratio, interval=Interval(low=found.low, high=found.high)),
        host_cpu=read_host_cpu(),
    )
