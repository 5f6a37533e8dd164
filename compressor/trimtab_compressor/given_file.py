"""The first steps of a model file: bring it into the form that passes work on, and run it.

An ONNX file of an opset below 13 is converted, one with its weights in other files is put together;
what was changed must compute what it computed before. Every other file stays as it is, byte by byte.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trimtab_compressor.agreement import check_agreement, compare_outputs
from trimtab_compressor.arrays import digest_key
from trimtab_compressor.cache import Cache
from trimtab_compressor.evaluate import run_file
from trimtab_compressor.model_file import ModelFile
from trimtab_compressor.plan import Step
from trimtab_compressor.results import path_of, save_outputs
from trimtab_compressor.runtimes.port import Arrays, Kernels
from trimtab_protocol.errors import ErrorCode, ModelError
from trimtab_protocol.manifest import ModelFormat

MIN_OPSET = 13
"""The first with per-channel QuantizeLinear, which quantized files are written with."""

CHECKED_SAMPLES = 8


class GivenFile:
    """Plans the steps of a file that a person gave.

    Args:
        subject: The file and its samples.
        cache: Where results are kept.
    """

    def __init__(self, subject: ModelFile, cache: Cache) -> None:
        self._subject = subject
        self._cache = cache

    def result(self) -> Step:
        """The file, ready for passes."""
        model_format = self._subject.format

        def make(path: Path) -> None:
            few = {name: rows[:CHECKED_SAMPLES] for name, rows in self._subject.test.items()}
            PREPARE[model_format](self._subject.path, path, few)

        key = digest_key({"given": self._subject.sha256, "tools": version("onnx")})
        return Step(
            f"read {self._subject.name}.{model_format.value}", key, f".{model_format.value}", make
        )

    def outputs(self) -> Step:
        """Of the file, for the whole test set."""
        source = self.result()

        def make(path: Path) -> None:
            file = path_of(self._cache, source)
            save_outputs(run_file(file, self._subject.test, Kernels.EXACT), path)

        key = digest_key({"outputs": source.key, "data": self._subject.evidence.sha256["test"]})
        return Step("run the model on the test set", key, ".npz", make)


def prepare_onnx(source: Path, target: Path, samples: Arrays) -> None:
    """Write an ONNX file of opset 13 or later, whole.

    Raises:
        ModelError: The file cannot be read, or not be converted.
    """
    import onnx  # noqa: PLC0415 - heavy
    from google.protobuf.message import (  # type: ignore[import-untyped]  # noqa: PLC0415
        DecodeError,
    )

    try:
        is_split = _is_split(onnx.load(source, load_external_data=False))
        model = onnx.load(source)
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{source} cannot be read as an ONNX model: {error}", code=ErrorCode.MODEL_UNREADABLE
        ) from error
    opset = opset_of(model)
    if opset >= MIN_OPSET and not is_split:
        shutil.copyfile(source, target)
        return
    if opset < MIN_OPSET:
        model = _convert(model, source, opset)
    onnx.save(model, target, save_as_external_data=False)
    before, after = (run_file(path, samples, Kernels.EXACT) for path in (source, target))
    for found, expected in zip(after, before, strict=True):
        check_agreement(compare_outputs(found, expected), is_quantized=False)


def prepare_tflite(source: Path, target: Path, samples: Arrays) -> None:
    """Copy; there is nothing to change."""
    del samples
    shutil.copyfile(source, target)


PREPARE: dict[ModelFormat, Callable[[Path, Path, Arrays], None]] = {
    ModelFormat.ONNX: prepare_onnx,
    ModelFormat.TFLITE: prepare_tflite,
}


def opset_of(model: Any) -> int:
    """Version of the standard operators that an ONNX model uses."""
    return max(
        (int(row.version) for row in model.opset_import if row.domain in ("", "ai.onnx")),
        default=MIN_OPSET,
    )


def _is_split(model: Any) -> bool:
    """Whether weights are in other files."""
    return any(row.external_data for row in model.graph.initializer)


def _convert(model: Any, source: Path, opset: int) -> Any:
    from onnx import version_converter  # noqa: PLC0415 - heavy

    try:
        return version_converter.convert_version(model, MIN_OPSET)
    except (RuntimeError, version_converter.ConvertError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise ModelError(
            f"{source} has opset {opset}, at least {MIN_OPSET} is needed, and it cannot be converted: "
            f"{first}; export it again with a later opset",
            code=ErrorCode.MODEL_UNREADABLE,
        ) from error
