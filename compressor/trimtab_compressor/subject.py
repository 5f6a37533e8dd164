"""Open what is compressed: a task file, or a model file with samples."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab_compressor.model_file import ModelFile
from trimtab_compressor.needs import check_needs
from trimtab_compressor.recipe import Choice
from trimtab_compressor.recipe_book import RecipeBook
from trimtab_compressor.runtimes.port import Kernels
from trimtab_compressor.runtimes.table import format_of, open_model
from trimtab_compressor.sample_files import SampleSet, read_sample_set, split_samples
from trimtab_compressor.task import Task
from trimtab_compressor.task_file import load_task
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.manifest import IoSpec, ModelFormat

MODEL_SUFFIXES = (".onnx", ".tflite")


@dataclass(frozen=True, kw_only=True)
class SubjectPaths:
    """Where a subject comes from.

    Args:
        path: Of the task file or the model file.
        data: Samples to judge on; of a model file.
        calibration: Samples to calibrate with; None to take some of `data`.
        labels: Of `data`; None to judge by agreement.
    """

    path: Path
    data: Path | None = None
    calibration: Path | None = None
    labels: Path | None = None

    def resolve(self) -> SubjectPaths:
        """The same, seen from any folder."""
        return SubjectPaths(
            path=self.path.resolve(),
            data=self.data and self.data.resolve(),
            calibration=self.calibration and self.calibration.resolve(),
            labels=self.labels and self.labels.resolve(),
        )


def open_subject(paths: SubjectPaths, note: Callable[[str], None]) -> Task | ModelFile:
    """Load a subject, with all its samples checked.

    Args:
        paths: Where it is.
        note: Told what was decided about the samples.

    Raises:
        ConfigError: The task or the samples are wrong.
        ModelError: The model does not load.
    """
    if paths.path.suffix in MODEL_SUFFIXES:
        return _read_model_file(paths, note)
    for option in ("data", "calibration", "labels"):
        if getattr(paths, option) is not None:
            raise ConfigError(
                f"--{option} belongs to a model file; {paths.path} is a task, which brings its own data"
            )
    return load_task(paths.path)


def _read_model_file(paths: SubjectPaths, note: Callable[[str], None]) -> ModelFile:
    path = paths.path
    format_of(path)
    if paths.data is None:
        raise ConfigError(
            f"{path} is a model file: give samples with --data, a .npz, .npy or a folder of them, as "
            "your application feeds them",
            code=ErrorCode.CONFIG_MISSING,
        )
    io = open_model(path, Kernels.EXACT).io
    _check_batch(path, io)
    samples = read_sample_set(paths.data, io, paths.labels)
    calibration, test = _split(samples, paths.calibration, io, note)
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
    samples: SampleSet, calibration_path: Path | None, io: IoSpec, note: Callable[[str], None]
) -> tuple[SampleSet, SampleSet]:
    if calibration_path is not None:
        return read_sample_set(calibration_path, io), samples
    calibration, test = split_samples(samples)
    note(f"{len(calibration)} samples to calibrate with, the other {len(test)} to judge on")
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
