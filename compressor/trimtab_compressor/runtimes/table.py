"""RUNTIMES: from a format to its runtime. Each is imported when it is first needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trimtab_compressor.runtimes.port import Kernels, Runner
from trimtab_protocol.errors import ConfigError, ErrorCode, ModelError
from trimtab_protocol.manifest import ModelFormat


def _open_onnx(path: Path, kernels: Kernels) -> Runner:
    from trimtab_compressor.runtimes.onnxruntime import OnnxRuntimeRunner  # noqa: PLC0415 - heavy

    return OnnxRuntimeRunner(path, kernels)


def _open_tflite(path: Path, kernels: Kernels) -> Runner:
    from trimtab_compressor.runtimes.litert import LitertRunner  # noqa: PLC0415 - heavy

    return LitertRunner(path, kernels)


RUNTIMES: dict[ModelFormat, Callable[[Path, Kernels], Runner]] = {
    ModelFormat.ONNX: _open_onnx,
    ModelFormat.TFLITE: _open_tflite,
}


def open_model(path: Path, kernels: Kernels) -> Runner:
    """Load a model file by the runtime of its suffix.

    Raises:
        ConfigError: There is no such file, or no runtime for its suffix.
        ModelError: `model.unreadable`: the runtime cannot load it.
    """
    return RUNTIMES[format_of(path)](path, kernels)


def format_of(path: Path) -> ModelFormat:
    """The format of an existing model file, by its suffix.

    Raises:
        ConfigError: There is no such file, or its suffix says nothing.
        ModelError: `model.unreadable`: it is empty.
    """
    if not path.is_file():
        raise ConfigError(f"model file {path} does not exist", code=ErrorCode.CONFIG_MISSING)
    found = [row for row in ModelFormat if path.suffix == f".{row.value}"]
    if not found:
        raise ConfigError(f"{path} ends in '{path.suffix}'; a model file ends in .onnx or .tflite")
    if path.stat().st_size == 0:
        raise ModelError(f"{path} is empty", code=ErrorCode.MODEL_UNREADABLE)
    return found[0]
