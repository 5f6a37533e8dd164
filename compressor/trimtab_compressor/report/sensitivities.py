"""What each layer of a run's float files costs when it alone is quantized, for the card."""

from __future__ import annotations

from pathlib import Path

from trimtab_compressor.arrays import AnyArray, IntArray
from trimtab_compressor.recipe_book import BASE_RECIPE
from trimtab_compressor.report.card import LayerSensitivity, SensitivityTable
from trimtab_compressor.run_report import RunReport
from trimtab_compressor.runtimes.port import Arrays, Kernels, fit_samples
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.sensitivity import Progress, measure_sensitivity
from trimtab_compressor.specs.quantization import QuantizeStatic
from trimtab_protocol.errors import ConfigError

JUDGED_SAMPLES = 256
"""The file runs on them once per layer."""


def measure_sensitivities(
    report: RunReport,
    folder: Path,
    calibration: Arrays | AnyArray,
    judged: tuple[Arrays | AnyArray, IntArray | None],
    progress: Progress | None = None,
) -> tuple[SensitivityTable, ...]:
    """One table per float file of the run.

    Args:
        report: What was made.
        folder: Where its files are.
        calibration: Inputs that show the ranges.
        judged: Inputs to judge on, with their labels if there are any.
        progress: Told each layer before it is measured.

    Raises:
        ConfigError: The run has no float file, or the samples do not fit.
        ModelError: A file cannot be read, or has no layer that can be quantized.
    """
    files = [row.file for row in report.candidates if row.recipe == BASE_RECIPE]
    if not files:
        raise ConfigError("sensitivity is measured on the float file; run the recipe fp32 too")
    return tuple(_measure(folder / file, calibration, judged, progress) for file in files)


def _measure(
    path: Path,
    calibration: Arrays | AnyArray,
    judged: tuple[Arrays | AnyArray, IntArray | None],
    progress: Progress | None,
) -> SensitivityTable:
    io = open_model(path, Kernels.EXACT).io
    inputs, labels = judged
    named = fit_samples(io, inputs, what="samples to judge on")
    found = measure_sensitivity(
        path,
        QuantizeStatic(),
        fit_samples(io, calibration, what="calibration"),
        {name: rows[:JUDGED_SAMPLES] for name, rows in named.items()},
        labels=None if labels is None else labels[:JUDGED_SAMPLES],
        progress=progress,
    )
    return SensitivityTable(
        file=path.name,
        samples=found.samples,
        accuracy=found.accuracy,
        layers=tuple(
            LayerSensitivity(layer=row.layer, sqnr_db=row.sqnr_db, drop=row.drop)
            for row in found.costs
        ),
        left_in_float=found.left_in_float,
    )
