"""LAYER_GRAPHS: from a format to its adapter. Each is imported when it is first needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trimtab_compressor.layers.port import LayerGraph
from trimtab_compressor.runtimes.table import format_of
from trimtab_protocol.manifest import ModelFormat


def _open_onnx(path: Path) -> LayerGraph:
    from trimtab_compressor.layers.onnx import OnnxLayers  # noqa: PLC0415 - heavy

    return OnnxLayers(path)


def _open_tflite(path: Path) -> LayerGraph:
    from trimtab_compressor.layers.tflite import TfliteLayers  # noqa: PLC0415 - heavy

    return TfliteLayers(path)


LAYER_GRAPHS: dict[ModelFormat, Callable[[Path], LayerGraph]] = {
    ModelFormat.ONNX: _open_onnx,
    ModelFormat.TFLITE: _open_tflite,
}


def open_layers(path: Path) -> LayerGraph:
    """The layers of a float model file.

    Raises:
        ConfigError: There is no such file, or no adapter for its suffix.
        ModelError: `model.unreadable`: it is no model of its format.
    """
    return LAYER_GRAPHS[format_of(path)](path)
