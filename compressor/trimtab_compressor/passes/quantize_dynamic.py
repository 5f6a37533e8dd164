"""Dynamic quantization: int8 weights in the file, activations quantized while the model runs.

ONNX: only the dense layers (MatMul, Gemm), unless convolutions are asked for. ONNX Runtime's
ConvInteger has no fast kernel: with it the reference CNN ran at 0.12 ms, more than twice its float
time of 0.05 ms, without it at 0.03 ms (ADR 0003). MatMulInteger multiplies U8 by S8, which saturates
on x86 CPUs without VNNI whatever the optimisation level, so weights should keep to 7 bits there.
TFLite: convolutions per channel, dense layers per tensor, because tflite-runtime 2.14 computes
per-channel dense layers wrongly and says nothing.
"""

from __future__ import annotations

import shutil

from trimtab_compressor.passes.onnx_files import (
    check_excluded,
    count_weights,
    prepared,
    rewrite_gemm,
)
from trimtab_compressor.passes.stage import FileStage, Findings
from trimtab_compressor.passes.tflite_files import quantize_tflite
from trimtab_compressor.passes.weight_types import report_change
from trimtab_compressor.specs.quantization import QuantizeDynamic
from trimtab_protocol.errors import ConfigError

DENSE_OPERATORS = ["MatMul"]


def quantize_dynamic_onnx(stage: FileStage[QuantizeDynamic]) -> Findings:
    """Quantize the dense layers of an ONNX model, and its convolutions if that is asked for.

    Raises:
        ConfigError: An excluded layer does not exist.
        ModelError: The model has no such layer with constant weights, so nothing was quantized.
    """
    import onnx  # noqa: PLC0415 - heavy
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - heavy

    spec = stage.spec
    with prepared(stage.source) as source:
        draft = source.with_name("quantized.onnx")
        excluded = check_excluded(source, spec.excluded)
        model = onnx.load(source)
        rewrite_gemm(model)  # as the quantizer does, which would give the nodes other names
        onnx.save(model, draft)
        quantize_dynamic(
            draft,
            draft,
            op_types_to_quantize=[*DENSE_OPERATORS, *(["Conv"] if spec.has_convolutions else [])],
            per_channel=spec.is_per_channel,
            weight_type=QuantType.QInt8,
            reduce_range=spec.is_range_reduced,
            nodes_to_exclude=excluded,
        )
        findings = report_change(count_weights(source), count_weights(draft))
        shutil.copyfile(draft, stage.target)
    return findings


def quantize_dynamic_tflite(stage: FileStage[QuantizeDynamic]) -> Findings:
    """Quantize all layers of a TFLite model that have a dynamic kernel.

    Raises:
        ConfigError: An excluded layer does not exist, or the spec asks for what TFLite does not have.
        ModelError: Nothing was quantized.
    """
    for name in ("is_range_reduced", "is_per_channel"):
        if getattr(stage.spec, name):
            raise ConfigError(
                f"quantize_dynamic: TFLite has no {name}; its dynamic kernels take weights of full "
                f"range, per channel in convolutions and per tensor in dense layers; leave {name} out"
            )
    from trimtab_compressor.passes.tflite_rules import dynamic_rules  # noqa: PLC0415 - heavy

    return quantize_tflite(stage, dynamic_rules(stage.spec))
