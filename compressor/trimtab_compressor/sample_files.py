"""Read samples for a model file: arrays as an application would feed them, never pickled objects.

What is understood, with n samples:
    data.npz    one array (n, *input shape) per input, under its name; also "labels", (n,)
    data.npy    the array of a model of one input
    folder/     one NAME.npy (n, *input shape) per input; or one file per sample, in the order of their
                names: .npy (*input shape) for a model of one input, .npz with one array per input
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab_compressor.arrays import AnyArray, IntArray
from trimtab_compressor.runtimes.port import Arrays, fit_samples
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.manifest import IoSpec

LABELS = "labels"
CALIBRATION_SAMPLES = 300
"""100 to 500 show the ranges of activations; more only take longer."""


@dataclass(frozen=True)
class SampleSet:
    """Samples matched to a model's inputs.

    Args:
        inputs: By input name, (n, *input shape).
        labels: (n,), or None.
    """

    inputs: Arrays
    labels: IntArray | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def rows(self, begin: int, end: int | None = None) -> SampleSet:
        """Some of the samples."""
        labels = None if self.labels is None else self.labels[begin:end]
        return SampleSet({name: row[begin:end] for name, row in self.inputs.items()}, labels)


def read_sample_set(path: Path, io: IoSpec, labels_path: Path | None = None) -> SampleSet:
    """Read samples, and their labels from the same .npz or from a file of their own.

    Raises:
        ConfigError: Something is missing, cannot be read, or does not fit the model.
    """
    arrays = dict(_read_folder(path, io) if path.is_dir() else _read_file(path))
    names = [spec.name for spec in io.inputs]
    labels = arrays.pop(LABELS) if LABELS in arrays and LABELS not in names else None
    if len(names) == 1 and len(arrays) == 1:
        arrays = {names[0]: next(iter(arrays.values()))}
    inputs = fit_samples(io, arrays, what=str(path))
    if labels_path is not None:
        labels = read_labels(labels_path)
    found = SampleSet(inputs, None)
    return found if labels is None else SampleSet(inputs, check_labels(labels, len(found), io))


def split_samples(samples: SampleSet) -> tuple[SampleSet, SampleSet]:
    """Calibration and test samples, apart from each other: half at most for calibration."""
    count = min(CALIBRATION_SAMPLES, len(samples) // 2)
    if count == 0:
        raise ConfigError(
            "one sample cannot both calibrate and judge; give more with --data, or others with "
            "--calibration"
        )
    return samples.rows(0, count), samples.rows(count)


def read_labels(path: Path) -> AnyArray:
    """One integer per sample: .npy, or text with one per line.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        return np.loadtxt(path, dtype=np.int64, ndmin=1)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(
            f"labels {path} cannot be read: {error}; give a .npy of integers or a text with one a line"
        ) from error


def check_labels(labels: AnyArray, count: int, io: IoSpec) -> IntArray:
    """Labels that fit the samples and the model's first output.

    Raises:
        ConfigError: They do not.
    """
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise ConfigError(
            f"labels are {labels.dtype} of shape {list(labels.shape)} for {count} samples; give one "
            "integer per sample"
        )
    shape = io.outputs[0].shape
    classes = shape[-1] if len(shape) == 2 else None
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes > 1):
        raise ConfigError(
            f"labels run from {low} to {high}, the model's first output has {classes} classes, which "
            "begin at 0; correct the labels"
        )
    return labels.astype(np.int64)


def _read_file(path: Path) -> Mapping[str, AnyArray]:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {path.stem: found}
        return {name: found[name] for name in found.files}
    except FileNotFoundError as error:
        raise ConfigError(
            f"samples {path} do not exist; give a .npz, a .npy or a folder",
            code=ErrorCode.CONFIG_MISSING,
        ) from error
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise ConfigError(f"samples {path} cannot be read as .npy or .npz: {error}") from error


def _read_folder(folder: Path, io: IoSpec) -> Mapping[str, AnyArray]:
    files = sorted(row for row in folder.iterdir() if row.suffix in (".npy", ".npz"))
    if not files:
        raise ConfigError(
            f"samples {folder}: the folder has no .npy or .npz files; save there what your application "
            "feeds to the model, one file per sample or one per input"
        )
    names = {spec.name for spec in io.inputs}
    whole = {row.stem: row for row in files if row.stem in (*names, LABELS)}
    if names <= set(whole):
        return {name: next(iter(_read_file(row).values())) for name, row in whole.items()}
    samples = [_read_sample(row, io) for row in files]
    return {name: _stack([row[name] for row in samples], files, name) for name in names}


def _read_sample(path: Path, io: IoSpec) -> dict[str, AnyArray]:
    """One sample by input name, without a batch axis."""
    arrays = _read_file(path)
    if len(io.inputs) == 1 and len(arrays) == 1:
        arrays = {io.inputs[0].name: next(iter(arrays.values()))}
    missing = [spec.name for spec in io.inputs if spec.name not in arrays]
    if missing:
        raise ConfigError(
            f"sample {path} has no array '{missing[0]}'; the model's inputs are "
            f"{', '.join(spec.name for spec in io.inputs)}: save each sample as .npz with one array per "
            "input"
        )
    found = {}
    for spec in io.inputs:
        rows = arrays[spec.name]
        has_batch = rows.ndim == len(spec.shape) and rows.shape[:1] == (1,)
        found[spec.name] = rows[0] if has_batch else rows
    return found


def _stack(samples: list[AnyArray], files: list[Path], name: str) -> AnyArray:
    for path, sample in zip(files, samples, strict=True):
        if sample.shape != samples[0].shape:
            raise ConfigError(
                f"samples for '{name}' differ in shape: {files[0].name} is {list(samples[0].shape)}, "
                f"{path.name} is {list(sample.shape)}; bring them to one shape as your application does"
            )
    return np.stack(samples)
