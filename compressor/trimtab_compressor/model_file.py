"""A model file with samples, as the thing that is compressed: everything that needs no training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trimtab_compressor.arrays import IntArray, digest_array, digest_file, digest_key
from trimtab_compressor.evidence import Evidence
from trimtab_compressor.runtimes.port import Arrays
from trimtab_compressor.runtimes.table import format_of
from trimtab_compressor.specs.base import Need
from trimtab_protocol.manifest import ModelFormat


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """What a person gives: a float model, and what it is fed with.

    Args:
        name: Lowercase; the default name of its artifacts.
        path: .onnx or .tflite; not changed.
        calibration: By input name, (n, *input shape); None if no pass needs any.
        test: What candidates are judged on, likewise; kept apart from the calibration samples.
        labels: (n,) integers of the test samples; None to judge by agreement with the float model.
    """

    name: str
    path: Path
    calibration: Arrays | None
    test: Arrays
    labels: IntArray | None = None

    @property
    def format(self) -> ModelFormat:
        """By the file's suffix; candidates have the same."""
        return format_of(self.path)

    @property
    def formats(self) -> tuple[ModelFormat, ...]:
        """Of its candidates: its own."""
        return (self.format,)

    def file(self, model_format: ModelFormat) -> ModelFile:
        """The file that candidates of a format are made of: this."""
        assert model_format is self.format
        return self

    @property
    def has(self) -> frozenset[Need]:
        """What passes can get from it."""
        found = {Need.VALIDATION}
        if self.calibration is not None:
            found.add(Need.CALIBRATION)
        if self.labels is not None:
            found.add(Need.TEST_LABELS)
        return frozenset(found)

    @property
    def seed(self) -> None:
        """Nothing is trained."""
        return

    def evidence_in(self, model_format: ModelFormat) -> Evidence:
        """Its samples."""
        return self.file(model_format).evidence

    @cached_property
    def sha256(self) -> str:
        """Of the file as it was given."""
        return digest_file(self.path)

    @cached_property
    def evidence(self) -> Evidence:
        """Its samples."""
        digests = {"test": _digest(self.test)}
        if self.calibration is not None:
            digests["calibration"] = _digest(self.calibration)
        if self.labels is not None:
            digests["test_labels"] = digest_array(self.labels)
        return Evidence(self.calibration, self.test, self.labels, digests)


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """One model in several formats, such as the exports of a Keras model.

    Args:
        name: Lowercase; the default name of its artifacts.
        files: By format, at least one.
    """

    name: str
    files: Mapping[ModelFormat, ModelFile]

    @property
    def formats(self) -> tuple[ModelFormat, ...]:
        """Of its candidates."""
        return tuple(self.files)

    def file(self, model_format: ModelFormat) -> ModelFile:
        """The file that candidates of a format are made of."""
        return self.files[model_format]

    @property
    def has(self) -> frozenset[Need]:
        """What passes can get from it."""
        return next(iter(self.files.values())).has

    @property
    def seed(self) -> None:
        """Nothing is trained."""
        return

    def evidence_in(self, model_format: ModelFormat) -> Evidence:
        """Its samples, by the names of the inputs in this format."""
        return self.files[model_format].evidence

    @property
    def evidence(self) -> Evidence:
        """Samples of the first format; those of the others are the same, under other names."""
        return next(iter(self.files.values())).evidence


def _digest(arrays: Arrays) -> str:
    return digest_key({name: digest_array(rows) for name, rows in arrays.items()})
