"""Quantize one layer of a file and leave everything else in float. Ranges are measured once.

With one layer quantized, what the file loses is what that layer costs: its rounded weights and the
rounding of its input and output.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from trimtab_compressor.passes.onnx_files import (
    count_weights,
    one_error,
    preprocess,
    run_activations,
)
from trimtab_compressor.passes.quantize_static import write_qdq
from trimtab_compressor.passes.ranges import find_ranges
from trimtab_compressor.passes.stage import FileStage
from trimtab_compressor.runtimes.port import Arrays
from trimtab_compressor.runtimes.table import format_of
from trimtab_compressor.specs.quantization import QuantizeStatic
from trimtab_protocol.errors import ModelError
from trimtab_protocol.manifest import ModelFormat

QuantizeOne: TypeAlias = Callable[[str], "Path | None"]
"""By a layer's name: a file that exists until the next call, or None if that layer stays float."""


@contextmanager
def open_quantize_one(
    source: Path, spec: QuantizeStatic, calibration: Arrays
) -> Iterator[QuantizeOne]:
    """Measure the ranges of a float file, and give what quantizes one of its layers.

    Args:
        source: Float file.
        spec: How to quantize; `excluded` is not used.
        calibration: By input name, (n, *input shape).

    Raises:
        ModelError: The file cannot be read or does not run.
    """
    with _ONE[format_of(source)](source, replace(spec, excluded=()), calibration) as found:
        yield found


@contextmanager
def _open_onnx(source: Path, spec: QuantizeStatic, calibration: Arrays) -> Iterator[QuantizeOne]:
    import onnx  # noqa: PLC0415 - heavy

    with tempfile.TemporaryDirectory() as folder:
        with one_error():  # not around the caller's work, whose output it would hide
            ready = preprocess(source, Path(folder))
            names = [node.name for node in onnx.load(ready).graph.node]
            ranges = find_ranges(
                lambda: run_activations(ready, calibration, ready.parent),
                spec.calibrator,
                spec.percentile,
            )
        target = ready.with_name("one.onnx")

        def quantize(layer: str) -> Path | None:
            others = [name for name in names if name != layer]
            with one_error():
                write_qdq(ready, target, spec, others, ranges)
            return target if count_weights(target).integer else None

        yield quantize


@contextmanager
def _open_tflite(source: Path, spec: QuantizeStatic, calibration: Arrays) -> Iterator[QuantizeOne]:
    from trimtab_compressor.passes import tflite_files  # noqa: PLC0415 - heavy
    from trimtab_compressor.passes.tflite_rules import pattern_of, static_rules  # noqa: PLC0415

    ranges = find_ranges(
        lambda: tflite_files.run_activations(source, calibration),
        spec.calibrator,
        spec.percentile,
        levels=2**spec.activation_bits,
    )
    with tempfile.TemporaryDirectory() as folder:
        stage = FileStage(
            spec=replace(spec, calibrator="minmax"),
            source=source,
            target=Path(folder) / "one.tflite",
            calibration={name: rows[:1] for name, rows in calibration.items()},
        )

        def quantize(layer: str) -> Path | None:
            rules = static_rules(spec, pattern_of(layer))
            try:
                tflite_files.quantize_tflite(stage, rules, ranges)
            except ModelError:  # nothing was quantized
                return None
            return stage.target

        yield quantize


_ONE = {ModelFormat.ONNX: _open_onnx, ModelFormat.TFLITE: _open_tflite}
