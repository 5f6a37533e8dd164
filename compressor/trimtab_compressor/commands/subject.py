"""What is compressed: a task file, or a model file with samples."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_protocol.errors import ConfigError, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trimtab_compressor.model_file import ModelFile
    from trimtab_compressor.recipe import Choice
    from trimtab_compressor.recipe_book import RecipeBook
    from trimtab_compressor.sample_files import SampleSet
    from trimtab_compressor.task import Task
    from trimtab_protocol.manifest import IoSpec, ModelFormat

MODEL_SUFFIXES = (".onnx", ".tflite")


def add_subject_arguments(parser: argparse.ArgumentParser) -> None:
    """The subject, and the samples that a model file needs."""
    parser.add_argument(
        "subject",
        type=Path,
        metavar="SUBJECT",
        help="Python file that defines TASK; or a model file, .onnx or .tflite, with --data",
    )
    samples = parser.add_argument_group(
        "for a model file",
        "DATA is a .npz with one array per input, a .npy, or a folder of either: one file per input or "
        "one per sample",
    )
    samples.add_argument("--data", type=Path, help="samples to judge candidates on")
    samples.add_argument(
        "--calibration",
        type=Path,
        metavar="DATA",
        help="samples to calibrate with; default: the first 300 of --data, at most half of them",
    )
    samples.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="one integer per sample of --data, .npy or text; without, candidates are judged by their "
        "agreement with the model that was given",
    )


def open_subject(options: argparse.Namespace) -> Task | ModelFile:
    """Load what `add_subject_arguments` names, with all its samples checked.

    Raises:
        ConfigError: The task or the samples are wrong.
        ModelError: The model does not load.
    """
    path: Path = options.subject
    if path.suffix in MODEL_SUFFIXES:
        return read_model_file(path, options)
    for option in ("data", "calibration", "labels"):
        if getattr(options, option) is not None:
            raise ConfigError(
                f"--{option} belongs to a model file; {path} is a task, which brings its own data"
            )
    from trimtab_compressor.task_file import load_task  # noqa: PLC0415 - runs user code

    return load_task(path)


def read_model_file(path: Path, options: argparse.Namespace) -> ModelFile:
    """A model file with its samples.

    Raises:
        ConfigError: The samples are missing or do not fit.
        ModelError: The model does not load.
    """
    from trimtab_compressor.model_file import ModelFile  # noqa: PLC0415 - keeps start fast
    from trimtab_compressor.runtimes.port import Kernels  # noqa: PLC0415
    from trimtab_compressor.runtimes.table import format_of, open_model  # noqa: PLC0415
    from trimtab_compressor.sample_files import read_sample_set  # noqa: PLC0415

    format_of(path)
    if options.data is None:
        raise ConfigError(
            f"{path} is a model file: give samples with --data, a .npz, .npy or a folder of them, as "
            "your application feeds them",
            code=ErrorCode.CONFIG_MISSING,
        )
    io = open_model(path, Kernels.EXACT).io
    _check_batch(path, io)
    samples = read_sample_set(options.data, io, options.labels)
    calibration, test = _split(samples, options.calibration, io)
    return ModelFile(
        name=_name_of(path),
        path=path,
        calibration=calibration.inputs,
        test=test.inputs,
        labels=test.labels,
    )


def read_choices(
    book: RecipeBook,
    names: Sequence[str],
    formats: Sequence[ModelFormat],
    subject: Task | ModelFile,
) -> tuple[tuple[Choice, ...], tuple[str, ...]]:
    """The candidates that can be made of a subject.

    Returns:
        The choices; and, if no recipe was named, why the others are left out.

    Raises:
        ConfigError: A recipe that was named cannot be carried out, or none is left.
    """
    from trimtab_compressor.model_file import ModelFile  # noqa: PLC0415 - keeps start fast
    from trimtab_compressor.needs import check_needs  # noqa: PLC0415

    if isinstance(subject, ModelFile):
        if subject.format not in formats:
            raise ConfigError(
                f"{subject.path} is {subject.format.value}, and a file pass keeps the format; leave "
                "--format out"
            )
        formats = (subject.format,)
    possible, left_out = [], []
    for choice in book.choices(names, formats):
        try:
            check_needs(book.find(choice.recipe), choice.format, subject.has)
            possible.append(choice)
        except ConfigError as error:
            if names:
                raise
            left_out.append(error.message.split(";", 1)[0])
    return tuple(possible), tuple(left_out)


def _split(
    samples: SampleSet, calibration_path: Path | None, io: IoSpec
) -> tuple[SampleSet, SampleSet]:
    from trimtab_compressor.sample_files import read_sample_set, split_samples  # noqa: PLC0415
    from trimtab_compressor.show import tell  # noqa: PLC0415

    if calibration_path is not None:
        return read_sample_set(calibration_path, io), samples
    calibration, test = split_samples(samples)
    tell(f"{len(calibration)} samples to calibrate with, the other {len(test)} to judge on")
    return calibration, test


def _check_batch(path: Path, io: IoSpec) -> None:
    """The first axis of every input counts samples, and devices run one at a time."""
    for spec in io.inputs:
        if not spec.shape or spec.shape[0] not in (None, 1):
            raise ConfigError(
                f"{path}: input '{spec.name}' has shape {list(spec.shape)}, whose first axis is neither "
                "free nor 1; export the model with a batch of 1 or a free one"
            )


def _name_of(path: Path) -> str:
    """A file's name as the name of artifacts."""
    name = re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("._-")
    return name[:64] or "model"
