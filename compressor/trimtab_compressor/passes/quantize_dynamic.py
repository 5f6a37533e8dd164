"""Dynamic quantization: int8 weights in the file, activations quantized while the model runs.

ONNX: only the dense layers (MatMul, Gemm). ONNX Runtime's ConvInteger has no fast kernel: with it
the reference CNN ran at 0.12 ms, more than twice its float time of 0.05 ms, without it at 0.03 ms
(ADR 0003). MatMulInteger multiplies U8 by S8, which saturates on x86 CPUs without VNNI whatever the
optimisation level, so weights should keep to 7 bits there. TFLite: convolutions per channel, dense layers per tensor, because tflite-runtime 2.14
computes per-channel dense layers wrongly and says nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from trimtab_compressor.passes.onnx_files import check_is_quantized, preprocess
from trimtab_compressor.passes.stage import FileStage, Findings
from trimtab_compressor.passes.tflite_files import TfliteRecipe, quantize_tflite
from trimtab_compressor.quiet import quiet
from trimtab_compressor.specs.quantization import QuantizeDynamic

DENSE_OPERATORS = ["MatMul", "Gemm"]


def quantize_dynamic_onnx(stage: FileStage[QuantizeDynamic]) -> Findings:
    """Quantize the dense layers of an ONNX model.

    Raises:
        ModelError: The model has no dense layer with constant weights, so nothing was quantized.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - heavy

    with tempfile.TemporaryDirectory() as folder, quiet():
        prepared = preprocess(stage.source, Path(folder))
        draft = Path(folder) / "quantized.onnx"
        quantize_dynamic(
            prepared,
            draft,
            op_types_to_quantize=DENSE_OPERATORS,
            weight_type=QuantType.QInt8,
            reduce_range=stage.spec.is_range_reduced,
        )
        check_is_quantized(draft)
        shutil.copyfile(draft, stage.target)
    return {}


def quantize_dynamic_tflite(stage: FileStage[QuantizeDynamic]) -> Findings:
    """Quantize all layers of a TFLite model that have a dynamic kernel.

    Raises:
        ModelError: Nothing was quantized.
    """
    quantize_tflite(stage.source, stage.target, TfliteRecipe.DYNAMIC_MIXED, stage.calibration)
    return {}
