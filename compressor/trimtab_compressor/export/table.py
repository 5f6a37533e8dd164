"""EXPORTERS: from a format to its exporter. Importing this imports torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from trimtab_compressor.export.onnx import export_onnx
from trimtab_compressor.export.tflite import export_tflite
from trimtab_protocol.manifest import ModelFormat

EXPORTERS: dict[ModelFormat, Callable[[nn.Module, tuple[int, ...], Path], None]] = {
    ModelFormat.ONNX: export_onnx,
    ModelFormat.TFLITE: export_tflite,
}
