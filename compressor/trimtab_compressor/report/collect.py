"""Collect a model card from results.json and the files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.comparison.sides import int8_macs_ratio
from trimtab_compressor.inspection.inspect_model import describe_file
from trimtab_compressor.recipe_book import BASE_PASSES, BASE_RECIPE
from trimtab_compressor.report.card import CardCandidate, HistogramPair, ModelCard
from trimtab_compressor.report.layers import FileLayers, LayerComparison, compare_layers
from trimtab_compressor.report.pareto import mark_front
from trimtab_compressor.run_report import CandidateResult, RunReport
from trimtab_compressor.runtimes.port import Arrays, Kernels, fit_samples
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.specs.base import NetworkSpec
from trimtab_compressor.specs.table import SPECS
from trimtab_protocol.errors import TrimtabError
from trimtab_protocol.manifest import ModelFormat
from trimtab_protocol.reading import Reading

ACTIVATION_SAMPLES = 16


def collect_card(
    report: RunReport, folder: Path, calibration: Arrays | AnyArray | None
) -> ModelCard:
    """Look into every file of a run.

    Args:
        report: What was made.
        folder: Where the files are; one that is missing, or was changed since, is said to be so.
        calibration: Inputs to look at activations with; None to leave them out.
    """
    rows: list[CardCandidate] = []
    histograms: list[HistogramPair] = []
    bases = _open_bases(report, folder)
    for result in report.candidates:
        compared = _compare(result, folder, bases.get(result.format), calibration)
        rows.append(_describe(result, folder, compared))
        histograms += compared.histograms
    return ModelCard(
        task=report.task,
        candidates=tuple(_mark(rows)),
        failures=report.failures,
        histograms=tuple(histograms),
        activation_samples=min(ACTIVATION_SAMPLES, _count(calibration)),
        seed=report.seed,
        data_sha256=report.data_sha256,
        tools=report.tools,
        is_complete=report.is_complete,
    )


def _open_bases(report: RunReport, folder: Path) -> dict[ModelFormat, FileLayers]:
    """The float files of the run, by format."""
    found = {}
    for row in report.candidates:
        path = folder / row.file
        if row.recipe == BASE_RECIPE and path.is_file():
            found[row.format] = FileLayers.of(path)
    return found


def _compare(
    result: CandidateResult,
    folder: Path,
    base: FileLayers | None,
    calibration: Arrays | AnyArray | None,
) -> LayerComparison:
    """A page with a gap is better than none: what goes wrong here becomes a note."""
    path = folder / result.file
    if not path.is_file() or result.recipe == BASE_RECIPE:
        return LayerComparison()
    if base is None:
        return LayerComparison(note="the float file is not part of this run: build fp32 too")
    try:
        samples = _samples(path, calibration)
        found = compare_layers(_name(result), base, FileLayers.of(path), samples)
    except (TrimtabError, RuntimeError, ValueError) as error:
        return LayerComparison(note=f"its layers could not be compared: {str(error)[:200]}")
    if _is_trained_anew(result):
        note = "its weights were trained anew, so what differs from the float file is no error"
        return LayerComparison(histograms=found.histograms, note=note)
    return found


def _is_trained_anew(result: CandidateResult) -> bool:
    """Whether a pass over the network came after the one that made the base."""
    base = {spec.pass_name for spec in BASE_PASSES}
    specs = (SPECS.get(row.name) for row in result.passes if row.name not in base)
    return any(spec is not None and issubclass(spec, NetworkSpec) for spec in specs)


def _samples(path: Path, calibration: Arrays | AnyArray | None) -> Sequence[Arrays]:
    if calibration is None:
        return ()
    named = fit_samples(open_model(path, Kernels.DEFAULT).io, calibration, what="calibration")
    count = min(ACTIVATION_SAMPLES, len(next(iter(named.values()))))
    return [{name: rows[at : at + 1] for name, rows in named.items()} for at in range(count)]


def _describe(result: CandidateResult, folder: Path, compared: LayerComparison) -> CardCandidate:
    path = folder / result.file
    if not path.is_file():
        gone = Reading(absent=f"{result.file} is not beside results.json")
        return CardCandidate(
            result=result,
            sha256=result.sha256,
            parameters=None,
            macs=gone,
            arithmetic={},
            int8_macs_ratio=gone,
            note=gone.absent or "",
        )
    found = describe_file(path)
    note = compared.note
    if result.sha256 is not None and found.sha256 != result.sha256:
        note = f"{result.file} is not the file that was evaluated: its digest differs"
    return CardCandidate(
        result=result,
        sha256=found.sha256,
        parameters=found.totals.parameters,
        macs=found.totals.macs,
        arithmetic={kind: share.layers for kind, share in found.arithmetic.items()},
        int8_macs_ratio=int8_macs_ratio(found),
        errors=compared.errors,
        note=note,
    )


def _mark(rows: Sequence[CardCandidate]) -> list[CardCandidate]:
    sizes = mark_front(
        [
            None if row.accuracy is None else (float(row.result.size_bytes), row.accuracy)
            for row in rows
        ]
    )
    macs = mark_front(
        [
            None
            if row.accuracy is None or row.macs.value is None
            else (row.macs.value, row.accuracy)
            for row in rows
        ]
    )
    return [
        row.model_copy(update={"is_best_for_size": by_size, "is_best_for_macs": by_macs})
        for row, by_size, by_macs in zip(rows, sizes, macs, strict=True)
    ]


def _name(result: CandidateResult) -> str:
    return f"{result.recipe} ({result.format.value})"


def _count(calibration: Arrays | AnyArray | None) -> int:
    if calibration is None:
        return 0
    rows = calibration if not isinstance(calibration, dict) else next(iter(calibration.values()))
    return len(rows)
