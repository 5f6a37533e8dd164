"""PASSES: from a pass's name to its function. Importing this imports torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from trimtab_compressor.passes.distill import distill
from trimtab_compressor.passes.prune_channels import prune_channels
from trimtab_compressor.passes.quantize_dynamic import (
    quantize_dynamic_onnx,
    quantize_dynamic_tflite,
)
from trimtab_compressor.passes.quantize_static import quantize_static_onnx, quantize_static_tflite
from trimtab_compressor.passes.specs import (
    Distill,
    PruneChannels,
    QuantizeDynamic,
    QuantizeStatic,
    Train,
)
from trimtab_compressor.passes.stage import FileStage, TorchStage
from trimtab_compressor.passes.train import train
from trimtab_protocol.manifest import ModelFormat

TorchPass = Callable[[TorchStage[Any]], nn.Module]
FilePass = Callable[[FileStage[Any]], None]

PASSES: dict[str, TorchPass] = {
    Train.pass_name: train,
    PruneChannels.pass_name: prune_channels,
    Distill.pass_name: distill,
}

FILE_PASSES: dict[tuple[str, ModelFormat], FilePass] = {
    (QuantizeDynamic.pass_name, ModelFormat.ONNX): quantize_dynamic_onnx,
    (QuantizeDynamic.pass_name, ModelFormat.TFLITE): quantize_dynamic_tflite,
    (QuantizeStatic.pass_name, ModelFormat.ONNX): quantize_static_onnx,
    (QuantizeStatic.pass_name, ModelFormat.TFLITE): quantize_static_tflite,
}
