"""PASSES: from a pass's name to its function. Importing this imports torch."""

from __future__ import annotations

from trimtab_compressor.passes.correct_bias import correct_bias
from trimtab_compressor.passes.distill import distill
from trimtab_compressor.passes.equalize import equalize
from trimtab_compressor.passes.prune_channels import prune_channels
from trimtab_compressor.passes.quantize_dynamic import (
    quantize_dynamic_onnx,
    quantize_dynamic_tflite,
)
from trimtab_compressor.passes.quantize_static import quantize_static_onnx, quantize_static_tflite
from trimtab_compressor.passes.round_weights import round_weights
from trimtab_compressor.passes.stage import FilePass, NetworkPass
from trimtab_compressor.passes.train import train
from trimtab_compressor.specs.distillation import Distill
from trimtab_compressor.specs.pruning import PruneChannels
from trimtab_compressor.specs.quantization import QuantizeDynamic, QuantizeStatic
from trimtab_compressor.specs.rescue import CorrectBias, Equalize, RoundWeights
from trimtab_compressor.specs.training import Train
from trimtab_protocol.manifest import ModelFormat

NETWORK_PASSES: dict[str, NetworkPass] = {
    Train.pass_name: train,
    PruneChannels.pass_name: prune_channels,
    Distill.pass_name: distill,
}

FILE_PASSES: dict[tuple[str, ModelFormat], FilePass] = {
    (Equalize.pass_name, ModelFormat.ONNX): equalize,
    (CorrectBias.pass_name, ModelFormat.ONNX): correct_bias,
    (RoundWeights.pass_name, ModelFormat.ONNX): round_weights,
    (QuantizeDynamic.pass_name, ModelFormat.ONNX): quantize_dynamic_onnx,
    (QuantizeDynamic.pass_name, ModelFormat.TFLITE): quantize_dynamic_tflite,
    (QuantizeStatic.pass_name, ModelFormat.ONNX): quantize_static_onnx,
    (QuantizeStatic.pass_name, ModelFormat.TFLITE): quantize_static_tflite,
}
