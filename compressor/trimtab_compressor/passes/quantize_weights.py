"""Weight-only quantization: integers in the file, floats in the arithmetic.

    w_q = round(w / s) + z,    w ~ s (w_q - z),    one s (and z) per block of weights or per channel

It makes files smaller and leaves activations alone, which is what layers that are limited by memory
want (Dettmers et al., "LLM.int8()", NeurIPS 2022; Frantar et al., "GPTQ", ICLR 2023, round better
than to the nearest, which is what is done here).

ONNX: dense layers become MatMulNBits, in blocks along the input axis; a Gemm is rewritten to MatMul
and Add before. Convolutions have no such operator and stay as they are. TFLite: every layer, with
one scale per channel and a DEQUANTIZE in front; tflite-runtime 2.14 cannot read 4 bits.
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
from trimtab_compressor.specs.quantization import QuantizeWeights
from trimtab_protocol.errors import ConfigError


def quantize_weights_onnx(stage: FileStage[QuantizeWeights]) -> Findings:
    """Store the matrices of an ONNX model's dense layers in few bits.

    Raises:
        ConfigError: An excluded layer does not exist.
        ModelError: The model has no dense layer with constant weights.
    """
    import onnx  # noqa: PLC0415 - heavy
    from onnxruntime.quantization.matmul_nbits_quantizer import (  # noqa: PLC0415 - heavy
        MatMulNBitsQuantizer,
    )

    spec = stage.spec
    with prepared(stage.source) as source:
        draft = source.with_name("quantized.onnx")
        excluded = check_excluded(source, spec.excluded)
        model = onnx.load(source)
        rewrite_gemm(model)
        worker = MatMulNBitsQuantizer(
            model,
            bits=spec.bits,
            block_size=spec.block_size,
            is_symmetric=spec.is_symmetric,
            nodes_to_exclude=excluded,
            op_types_to_quantize=("MatMul",),
        )
        worker.process()
        onnx.save(worker.model.model, draft)
        findings = report_change(count_weights(source), count_weights(draft))
        shutil.copyfile(draft, stage.target)
    return findings


def quantize_weights_tflite(stage: FileStage[QuantizeWeights]) -> Findings:
    """Store the weights of a TFLite model in few bits.

    Raises:
        ConfigError: An excluded layer does not exist, or the spec asks for zero points.
        ModelError: Nothing was quantized.
    """
    if not stage.spec.is_symmetric:
        raise ConfigError(
            "quantize_weights: TFLite weights lie around zero; leave is_symmetric at true"
        )
    from trimtab_compressor.passes.tflite_rules import weight_rules  # noqa: PLC0415 - heavy

    return quantize_tflite(stage, weight_rules(stage.spec))
