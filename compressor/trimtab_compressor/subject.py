"""Open what is compressed: a task file, or a model file with samples."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from trimtab_compressor.cache import Cache
from trimtab_compressor.keras_model import KerasModel
from trimtab_compressor.model_file import ModelFile, ModelFiles
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

MODEL_SUFFIXES = (".onnx", ".tflite", ".keras")
KERAS_SUFFIX = ".keras"

AnySubject: TypeAlias = Task | ModelFile | ModelFiles


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


def open_subject(
    paths: SubjectPaths,
    formats: Sequence[ModelFormat],
    cache: Cache,
    note: Callable[[str], None],
) -> AnySubject:
    """Load a subject, with all its samples checked.

    Args:
        paths: Where it is.
        formats: That are wanted; a Keras model is exported to these.
        cache: Where exports are kept.
        note: Told what is done to a model file before it can be used.

    Raises:
        ConfigError: The task or the samples are wrong.
        ModelError: The model does not load.
    """
    if paths.path.suffix in MODEL_SUFFIXES:
        return _read_model_file(paths, formats, cache, note)
    for option in ("data", "calibration", "labels"):
        if getattr(paths, option) is not None:
            raise ConfigError(
                f"--{option} belongs to a model file; {paths.path} is a task, which brings its own data"
            )
    return load_task(paths.path)


def _read_model_file(
    paths: SubjectPaths,
    formats: Sequence[ModelFormat],
    cache: Cache,
    note: Callable[[str], None],
) -> ModelFile | ModelFiles:
    path = paths.path
    if path.suffix != KERAS_SUFFIX:
        format_of(path)
    if paths.data is None:
        raise ConfigError(
            f"{path} is a model file: give samples with --data, a .npz, .npy or a folder of them, as "
            "your application feeds them",
            code=ErrorCode.CONFIG_MISSING,
        )
    keras = KerasModel(path, cache) if path.suffix == KERAS_SUFFIX else None
    io = keras.io() if keras is not None else open_model(path, Kernels.EXACT).io
    _check_batch(path, io)
    samples = read_sample_set(paths.data, io, paths.labels)
    calibration, test = _split(samples, paths.calibration, io, note)
    whole = ModelFile(
        name=_name_of(path),
        path=path,
        calibration=calibration.inputs,
        test=test.inputs,
        labels=test.labels,
    )
    return whole if keras is None else _export_all(keras, whole, formats, note)


def _export_all(
    keras: KerasModel,
    whole: ModelFile,
    formats: Sequence[ModelFormat],
    note: Callable[[str], None],
) -> ModelFiles:
    files = {}
    for model_format in formats:
        note(f"{whole.path.name} as {model_format.value}")
        path = keras.export(model_format, whole.test)
        files[model_format] = replace(
            whole,
            path=path,
            calibration=whole.calibration and keras.rename(path, whole.calibration),
            test=keras.rename(path, whole.test),
        )
    return ModelFiles(name=whole.name, files=files)


def read_choices(
    book: RecipeBook,
    names: Sequence[str],
    formats: Sequence[ModelFormat],
    subject: AnySubject,
) -> tuple[tuple[Choice, ...], tuple[str, ...]]:
    """The candidates that can be made of a subject.

    Returns:
        The choices; and, if no recipe was named, why the others are left out.

    Raises:
        ConfigError: A recipe that was named cannot be carried out, or none is left.
    """
    formats = read_formats_of(subject, formats)
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


def read_formats_of(subject: AnySubject, formats: Sequence[ModelFormat]) -> tuple[ModelFormat, ...]:
    """Those of the wanted formats that candidates of a subject can have.

    Raises:
        ConfigError: None of them.
    """
    if isinstance(subject, Task):
        return tuple(formats)
    possible = tuple(row for row in formats if row in subject.formats)
    if not possible:
        raise ConfigError(
            f"{subject.name} is {subject.formats[0].value}, and a file pass keeps the format; leave "
            "--format out"
        )
    return possible


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
