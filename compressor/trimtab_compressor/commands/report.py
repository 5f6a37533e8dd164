"""`report`: the model card of a run, as one page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_protocol.errors import ConfigError

if TYPE_CHECKING:
    from trimtab_compressor.evidence import Evidence
    from trimtab_compressor.report.card import SensitivityTable

HELP = "write the model card of a run: what was made, from what, how good, layer by layer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Results, samples, output."""
    parser.add_argument("results", type=Path, help="results.json, with the models beside it")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html beside it")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--data", type=Path, help="samples to look into the models with: .npz, .npy or a folder"
    )
    source.add_argument("--task", type=Path, help="take the samples of a task")
    parser.add_argument(
        "--sensitivity",
        action="store_true",
        help="also measure what each layer costs when it alone is quantized; takes a run per layer",
    )
    parser.add_argument("--json", action="store_true", help="print the card as JSON")


def run(options: argparse.Namespace) -> None:
    """Write the page and print where it is.

    Raises:
        ConfigError: The results or the samples are wrong, or the page cannot be written.
        ModelError: Sensitivity cannot be measured.
    """
    from trimtab_compressor.report.write import PAGE, write_card  # noqa: PLC0415 - keeps start fast

    target = options.out or options.results.parent / PAGE
    evidence = read_evidence(options)
    sensitivities = _measure(options.results, evidence) if options.sensitivity else ()
    calibration = evidence.calibration if evidence is not None else None
    card = write_card(options.results, calibration, target, sensitivities)
    print(card.model_dump_json(indent=2) if options.json else f"report       {target}")


def read_evidence(options: argparse.Namespace) -> Evidence | None:
    """The samples that were given; None if there are none.

    Raises:
        ConfigError: They cannot be read, or do not fit the models.
    """
    if options.task is not None:
        from trimtab_compressor.task_file import load_task  # noqa: PLC0415 - runs user code

        return load_task(options.task).evidence
    if options.data is None:
        return None
    from trimtab_compressor.evidence import Evidence  # noqa: PLC0415
    from trimtab_compressor.report.write import read_results  # noqa: PLC0415
    from trimtab_compressor.runtimes.port import Kernels  # noqa: PLC0415
    from trimtab_compressor.runtimes.table import open_model  # noqa: PLC0415
    from trimtab_compressor.sample_files import CALIBRATION_SAMPLES, read_sample_set  # noqa: PLC0415

    files = [row.file for row in read_results(options.results).candidates]
    if not files:
        raise ConfigError(
            f"{options.results} has no candidates to run samples on; leave --data out"
        )
    io = open_model(options.results.parent / files[0], Kernels.DEFAULT).io
    found = read_sample_set(options.data, io)
    inputs = found.inputs if len(found.inputs) > 1 else next(iter(found.inputs.values()))
    calibration = found.rows(0, CALIBRATION_SAMPLES).inputs
    few = calibration if len(calibration) > 1 else next(iter(calibration.values()))
    return Evidence(few, inputs, found.labels, {})


def _measure(results: Path, evidence: Evidence | None) -> tuple[SensitivityTable, ...]:
    from trimtab_compressor.report.sensitivities import measure_sensitivities  # noqa: PLC0415
    from trimtab_compressor.report.write import read_results  # noqa: PLC0415
    from trimtab_compressor.show import tell  # noqa: PLC0415

    if evidence is None or evidence.calibration is None:
        raise ConfigError("--sensitivity runs samples: give --data or --task")
    return measure_sensitivities(
        read_results(results),
        results.parent,
        evidence.calibration,
        (evidence.inputs, evidence.labels),
        lambda done, count, name: tell(f"sensitivity {done + 1} of {count}: {name}"),
    )
