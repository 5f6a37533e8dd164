"""PASSES: from a pass's name to its function. Importing this imports torch."""

from __future__ import annotations

from trimtab_compressor.passes.correct_bias import correct_bias
from trimtab_compressor.passes.distill import distill, distill_decoupled, distill_hard
from trimtab_compressor.passes.distill_features import distill_features
from trimtab_compressor.passes.equalize import equalize
from trimtab_compressor.passes.prune_channels import prune_channels
from trimtab_compressor.passes.prune_layers import prune_layers
from trimtab_compressor.passes.prune_weights import prune_weights
from trimtab_compressor.passes.quantize_aware import quantize_aware
from trimtab_compressor.passes.quantize_dynamic import (
    quantize_dynamic_onnx,
    quantize_dynamic_tflite,
)
from trimtab_compressor.passes.quantize_float16 import (
    quantize_float16_onnx,
    quantize_float16_tflite,
)
from trimtab_compressor.passes.quantize_static import quantize_static_onnx, quantize_static_tflite
from trimtab_compressor.passes.quantize_verified import quantize_verified
from trimtab_compressor.passes.quantize_weights import (
    quantize_weights_onnx,
    quantize_weights_tflite,
)
from trimtab_compressor.passes.round_weights import round_weights
from trimtab_compressor.passes.stage import FilePass, NetworkPass
from trimtab_compressor.passes.train import train
from trimtab_compressor.passes.transfer_features import transfer_features
from trimtab_compressor.passes.transfer_finetune import transfer_finetune
from trimtab_compressor.specs.distillation import (
    Distill,
    DistillDecoupled,
    DistillFeatures,
    DistillHard,
)
from trimtab_compressor.specs.pruning import PruneChannels, PruneLayers, PruneWeights
from trimtab_compressor.specs.quantization import (
    QuantizeDynamic,
    QuantizeFloat16,
    QuantizeStatic,
    QuantizeVerified,
    QuantizeWeights,
)
from trimtab_compressor.specs.quantize_aware import QuantizeAware
from trimtab_compressor.specs.rescue import CorrectBias, Equalize, RoundWeights
from trimtab_compressor.specs.training import Train
from trimtab_compressor.specs.transfer import TransferFeatures, TransferFinetune
from trimtab_protocol.manifest import ModelFormat

NETWORK_PASSES: dict[str, NetworkPass] = {
    Train.pass_name: train,
    PruneWeights.pass_name: prune_weights,
    PruneChannels.pass_name: prune_channels,
    PruneLayers.pass_name: prune_layers,
    Distill.pass_name: distill,
    DistillHard.pass_name: distill_hard,
    DistillDecoupled.pass_name: distill_decoupled,
    DistillFeatures.pass_name: distill_features,
    TransferFeatures.pass_name: transfer_features,
    TransferFinetune.pass_name: transfer_finetune,
    QuantizeAware.pass_name: quantize_aware,
}

FILE_PASSES: dict[tuple[str, ModelFormat], FilePass] = {
    (Equalize.pass_name, ModelFormat.ONNX): equalize,
    (Equalize.pass_name, ModelFormat.TFLITE): equalize,
    (CorrectBias.pass_name, ModelFormat.ONNX): correct_bias,
    (CorrectBias.pass_name, ModelFormat.TFLITE): correct_bias,
    (RoundWeights.pass_name, ModelFormat.ONNX): round_weights,
    (RoundWeights.pass_name, ModelFormat.TFLITE): round_weights,
    (QuantizeDynamic.pass_name, ModelFormat.ONNX): quantize_dynamic_onnx,
    (QuantizeDynamic.pass_name, ModelFormat.TFLITE): quantize_dynamic_tflite,
    (QuantizeStatic.pass_name, ModelFormat.ONNX): quantize_static_onnx,
    (QuantizeStatic.pass_name, ModelFormat.TFLITE): quantize_static_tflite,
    (QuantizeWeights.pass_name, ModelFormat.ONNX): quantize_weights_onnx,
    (QuantizeWeights.pass_name, ModelFormat.TFLITE): quantize_weights_tflite,
    (QuantizeFloat16.pass_name, ModelFormat.ONNX): quantize_float16_onnx,
    (QuantizeFloat16.pass_name, ModelFormat.TFLITE): quantize_float16_tflite,
    (QuantizeVerified.pass_name, ModelFormat.ONNX): quantize_verified,
    (QuantizeVerified.pass_name, ModelFormat.TFLITE): quantize_verified,
}
