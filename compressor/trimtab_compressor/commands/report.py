"""`report`: the model card of a run, as one page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_protocol.errors import ConfigError

if TYPE_CHECKING:
    from trimtab_compressor.arrays import AnyArray
    from trimtab_compressor.runtimes.port import Arrays

HELP = "write the model card of a run: what was made, from what, how good, layer by layer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Results, samples, output."""
    parser.add_argument("results", type=Path, help="results.json, with the models beside it")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html beside it")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--data", type=Path, help="samples to look at activations with: .npz, .npy or a folder"
    )
    source.add_argument("--task", type=Path, help="take the calibration samples of a task")
    parser.add_argument("--json", action="store_true", help="also print the card as JSON")


def run(options: argparse.Namespace) -> None:
    """Write the page and print where it is.

    Raises:
        ConfigError: The results or the samples are wrong, or the page cannot be written.
    """
    from trimtab_compressor.report.write import PAGE, write_card  # noqa: PLC0415 - keeps start fast

    target = options.out or options.results.parent / PAGE
    card = write_card(options.results, read_calibration(options), target)
    print(card.model_dump_json(indent=2) if options.json else f"report       {target}")


def read_calibration(options: argparse.Namespace) -> Arrays | AnyArray | None:
    """The samples that were given; None if there are none.

    Raises:
        ConfigError: They cannot be read, or do not fit the models.
    """
    if options.task is not None:
        from trimtab_compressor.task_file import load_task  # noqa: PLC0415 - runs user code

        return load_task(options.task).evidence.calibration
    if options.data is None:
        return None
    from trimtab_compressor.report.write import read_results  # noqa: PLC0415
    from trimtab_compressor.runtimes.port import Kernels  # noqa: PLC0415
    from trimtab_compressor.runtimes.table import open_model  # noqa: PLC0415
    from trimtab_compressor.sample_files import read_sample_set  # noqa: PLC0415

    files = [row.file for row in read_results(options.results).candidates]
    if not files:
        raise ConfigError(
            f"{options.results} has no candidates to run samples on; leave --data out"
        )
    io = open_model(options.results.parent / files[0], Kernels.DEFAULT).io
    inputs = read_sample_set(options.data, io).inputs
    return inputs if len(inputs) > 1 else next(iter(inputs.values()))
