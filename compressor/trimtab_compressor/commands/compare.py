"""`compare`: two model files on the same inputs, side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_compressor.commands.inspect import read_shapes
from trimtab_protocol.errors import ConfigError

if TYPE_CHECKING:
    from trimtab_compressor.comparison.compare import Inputs

HELP = "compare two model files: outputs, accuracy, sizes, what is computed with integers"

LAYOUTS = ("same", "nchw_to_nhwc", "nhwc_to_nchw")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Both files, samples, output."""
    parser.add_argument("a", type=Path, metavar="A", help="what B is compared with")
    parser.add_argument("b", type=Path, metavar="B", help="usually the compressed one")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--data", type=Path, help="samples for A: .npz, .npy or a folder of them; else seeded noise"
    )
    source.add_argument("--task", type=Path, help="take the test set of a task")
    parser.add_argument(
        "--labels", type=Path, metavar="FILE", help="one integer per sample of --data"
    )
    parser.add_argument(
        "--samples", type=int, metavar="N", help="only the first N samples; default: all"
    )
    parser.add_argument(
        "--layout", choices=LAYOUTS, help="how B's images are made of A's; default: find out"
    )
    parser.add_argument(
        "--shape", action="append", default=[], metavar="INPUT=1,3,48,192", help="as for inspect"
    )
    parser.add_argument(
        "--latency", action="store_true", help="also B's latency over A's on this host, in turns"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run(options: argparse.Namespace) -> None:
    """Print what was found.

    Raises:
        ConfigError: The files or the samples do not fit.
        ModelError: A file cannot be read or does not run.
    """
    shapes = read_shapes(options.shape)
    if options.labels is not None and options.data is None:
        raise ConfigError("--labels belongs to --data; a task brings its own")

    from trimtab_compressor.comparison.compare import compare_files, compare_latency  # noqa: PLC0415
    from trimtab_compressor.comparison.layout import Layout  # noqa: PLC0415

    layout = Layout(options.layout) if options.layout is not None else None
    inputs = read_inputs(options, shapes)
    found = compare_files(options.a, options.b, inputs, layout=layout, shapes=shapes)
    if options.latency:
        latency = compare_latency(options.a, options.b, inputs, layout)
        found = found.model_copy(update={"latency": latency})
    if options.json:
        print(found.model_dump_json(indent=2))
        return

    from trimtab_compressor.comparison.show import print_comparison  # noqa: PLC0415

    print_comparison(found)


def read_inputs(options: argparse.Namespace, shapes: dict[str, tuple[int, ...]]) -> Inputs:
    """The samples that were given, or noise.

    Raises:
        ConfigError: They are missing, cannot be read, or do not fit A.
    """
    from trimtab_compressor.comparison.compare import Inputs, noise_inputs  # noqa: PLC0415

    if options.data is None and options.task is None:
        return noise_inputs(options.a, shapes)
    found = _read_data(options) if options.data is not None else _read_task(options)
    if options.samples is None:
        return found
    if options.samples < 1:
        raise ConfigError(f"--samples is {options.samples}; give at least 1")
    count = options.samples
    arrays = {name: rows[:count] for name, rows in found.arrays.items()}
    return Inputs(arrays, None if found.labels is None else found.labels[:count], found.source)


def _read_data(options: argparse.Namespace) -> Inputs:
    from trimtab_compressor.comparison.compare import Inputs  # noqa: PLC0415
    from trimtab_compressor.runtimes.port import Kernels  # noqa: PLC0415
    from trimtab_compressor.runtimes.table import open_model  # noqa: PLC0415
    from trimtab_compressor.sample_files import read_sample_set  # noqa: PLC0415

    io = open_model(options.a, Kernels.DEFAULT).io
    found = read_sample_set(options.data, io, options.labels)
    return Inputs(found.inputs, found.labels, str(options.data))


def _read_task(options: argparse.Namespace) -> Inputs:
    from trimtab_compressor.comparison.compare import Inputs  # noqa: PLC0415
    from trimtab_compressor.runtimes.port import Kernels, fit_samples  # noqa: PLC0415
    from trimtab_compressor.runtimes.table import open_model  # noqa: PLC0415
    from trimtab_compressor.task_file import load_task  # noqa: PLC0415

    task = load_task(options.task)
    io = open_model(options.a, Kernels.DEFAULT).io
    arrays = fit_samples(io, task.test.inputs, what=f"test samples of {task.name}")
    return Inputs(arrays, task.test.labels, f"test samples of task {task.name}")
