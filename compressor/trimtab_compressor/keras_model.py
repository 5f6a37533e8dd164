"""A Keras 3 model as a file that the runtimes know; its own exporters do it, on PyTorch.

What they write must compute what the model computes, on the samples that came with it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trimtab_compressor.agreement import check_agreement, compare_outputs
from trimtab_compressor.arrays import AnyArray, digest_file, digest_key
from trimtab_compressor.cache import Cache
from trimtab_compressor.evaluate import run_file
from trimtab_compressor.quiet import quiet
from trimtab_compressor.runtimes.port import Arrays, Kernels, read_dtype
from trimtab_compressor.runtimes.table import open_model
from trimtab_protocol.errors import ConfigError, ErrorCode, ModelError
from trimtab_protocol.manifest import IoSpec, ModelFormat, TensorSpec

EXPORT_FORMATS = {ModelFormat.ONNX: "onnx", ModelFormat.TFLITE: "litert"}
CHECKED_SAMPLES = 8


class KerasModel:
    """A .keras file, described and exported once per content.

    Args:
        path: Of the file.
        cache: Where results are kept.

    Raises:
        ConfigError: There is no such file.
    """

    def __init__(self, path: Path, cache: Cache) -> None:
        if not path.is_file():
            raise ConfigError(f"model file {path} does not exist", code=ErrorCode.CONFIG_MISSING)
        self._path = path
        self._cache = cache
        self._sha256 = digest_file(path)

    def io(self) -> IoSpec:
        """Inputs and outputs as Keras names them.

        Raises:
            ConfigError: Keras is not installed, or has another backend.
            ModelError: The model cannot be read.
        """

        def make(path: Path) -> None:
            model = load_keras(self._path)
            io = IoSpec(inputs=_specs(model.inputs), outputs=_specs(model.outputs))
            path.write_text(io.model_dump_json())

        key = digest_key({"keras": self._sha256})
        found = self._cache.get_or_make(key, ".io.json", make)
        return IoSpec.model_validate_json(found.read_text())

    def export(self, model_format: ModelFormat, samples: Arrays) -> Path:
        """The file in one of our formats.

        Args:
            model_format: Of the file.
            samples: By Keras' input names, (n, *input shape); a few are used to check the export.

        Raises:
            ModelError: The model cannot be exported, or its file computes something else.
        """

        def make(path: Path) -> None:
            _export(self._path, model_format, path, _few_rows(self.io(), samples))

        key = digest_key({"keras": self._sha256, "format": model_format.value})
        return self._cache.get_or_make(key, f".{model_format.value}", make)

    def rename(self, exported: Path, samples: Arrays) -> dict[str, AnyArray]:
        """Samples by the input names of an exported file, which has its inputs in Keras' order."""
        return _rename(exported, [samples[spec.name] for spec in self.io().inputs])


def load_keras(path: Path) -> Any:
    """Read a model, without code that travels in it.

    Raises:
        ConfigError: Keras is not installed, or has another backend than PyTorch.
        ModelError: The file cannot be read.
    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    with quiet():
        try:
            import keras  # noqa: PLC0415 - heavy and optional
        except ImportError as error:
            raise ConfigError(
                f"{path} needs Keras; install trimtab[keras]", code=ErrorCode.CONFIG_MISSING
            ) from error
        if keras.backend.backend() != "torch":
            raise ConfigError(
                f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=torch to export {path}"
            )
        try:
            return keras.models.load_model(path, compile=False)
        except Exception as error:  # Keras raises whatever its layers raise
            raise ModelError(
                f"{path} cannot be read as a Keras model: {_first_line(error)}",
                code=ErrorCode.MODEL_UNREADABLE,
            ) from error


def _export(
    source: Path, model_format: ModelFormat, target: Path, rows: Sequence[AnyArray]
) -> None:
    model = load_keras(source)
    with quiet():
        try:
            outputs = model(
                list(rows) if len(rows) > 1 else rows[0]
            )  # the exporter wants it called
            model.export(str(target), format=EXPORT_FORMATS[model_format], verbose=False)
        except Exception as error:  # Keras raises whatever its layers raise
            raise ModelError(
                f"{source} cannot be exported as {model_format.value}: {_first_line(error)}",
                code=ErrorCode.MODEL_UNREADABLE,
            ) from error
    expected = outputs if isinstance(outputs, list | tuple) else [outputs]
    found = run_file(target, _rename(target, rows), Kernels.EXACT)
    for own, wanted in zip(found, expected, strict=True):
        check_agreement(compare_outputs(own, wanted.detach().numpy()), is_quantized=False)


def _rename(exported: Path, rows: Sequence[AnyArray]) -> dict[str, AnyArray]:
    """LiteRT lists inputs in any order, under names that end in their number."""
    names = [spec.name for spec in open_model(exported, Kernels.EXACT).io.inputs]
    if exported.suffix == ".tflite":
        names.sort(key=lambda name: (len(name), name))
    return dict(zip(names, rows, strict=True))


def _few_rows(io: IoSpec, samples: Arrays) -> list[AnyArray]:
    return [np.ascontiguousarray(samples[spec.name][:CHECKED_SAMPLES]) for spec in io.inputs]


def _specs(tensors: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=row.name, dtype=read_dtype(str(row.dtype), tensor=row.name), shape=tuple(row.shape)
        )
        for row in tensors
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
