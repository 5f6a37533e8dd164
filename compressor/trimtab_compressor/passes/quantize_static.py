"""Static quantization: integer weights and activations, ranges from calibration samples.

    x_q = clamp(round(x / s) + z, 0, 2^b - 1),    x ~ s (x_q - z)

(Jacob et al., CVPR 2018). The range [low, high] of an activation, which `ranges` finds, gives
s = (high - low) / (2^b - 1) and z = round(-low / s); symmetric, z = 0 and s = max |x| / (2^(b-1) - 1).

ONNX: QDQ. Asymmetric is U8 activations with S8 weights, symmetric is S8 with S8; both are integer
kernels everywhere, but x86 CPUs without VNNI multiply U8 by S8 in pairs that saturate at 16 bits.
`is_range_reduced` keeps weights to 7 bits, where that cannot happen; unsigned weights (U8 with U8)
are widened first and cannot either. TFLite: its int8 scheme (asymmetric activations, symmetric
weights) or its 16x8 scheme (int16 activations), with float inputs and outputs.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from trimtab_compressor.passes.onnx_files import (
    check_excluded,
    count_weights,
    prepared,
    run_activations,
)
from trimtab_compressor.passes.probe_files import find_onnx_ranges, find_tflite_ranges, note_ranges
from trimtab_compressor.passes.quantize_float16 import store_float16
from trimtab_compressor.passes.ranges import Range, find_ranges
from trimtab_compressor.passes.stage import FileStage, Findings
from trimtab_compressor.passes.tflite_files import quantize_tflite
from trimtab_compressor.passes.weight_types import report_change
from trimtab_compressor.specs.quantization import QuantizeStatic
from trimtab_protocol.errors import ConfigError


def quantize_static_onnx(stage: FileStage[QuantizeStatic]) -> Findings:
    """Write the QDQ form of an ONNX model.

    Raises:
        ConfigError: The spec asks for something that ONNX Runtime does not have, or excludes a layer
            that the model does not have.
        ModelError: Nothing was quantized, or the quantizer refused the model.
    """
    spec = stage.spec
    if spec.activation_bits != 8:
        raise ConfigError(
            "quantize_static: ONNX Runtime has no integer kernels for 16-bit activations on CPUs, "
            "they would be computed in float; use activation_bits = 16 with TFLite, or exclude layers"
        )
    with prepared(stage.source) as source:
        draft = source.with_name("quantized.onnx")
        excluded = check_excluded(source, spec.excluded)
        ranges = find_ranges(
            lambda: run_activations(source, stage.calibration, source.parent),
            spec.calibrator,
            spec.percentile,
        )
        learned = find_onnx_ranges(source, stage)
        ranges |= {name: (row.low, row.high) for name, row in learned.items()}
        write_qdq(source, draft, spec, excluded, ranges)
        if spec.excluded_type == "float16":
            store_float16(draft, draft, only=excluded)
        findings = report_change(count_weights(source), count_weights(draft))
        shutil.copyfile(draft, stage.target)
    return {**findings, **note_ranges(stage, learned)}


def quantize_static_tflite(stage: FileStage[QuantizeStatic]) -> Findings:
    """Write the integer form of a TFLite model.

    Raises:
        ConfigError: The spec asks for something that TFLite does not have, or excludes a layer that
            the model does not have.
        ModelError: Nothing was quantized, or the quantizer refused the model.
    """
    spec = stage.spec
    refused = {
        "is_symmetric": spec.is_symmetric and spec.activation_bits == 8,
        "is_range_reduced": spec.is_range_reduced,
        "is_weight_unsigned": spec.is_weight_unsigned,
    }
    for name, is_asked in refused.items():
        if is_asked:
            raise ConfigError(
                f"quantize_static: TFLite has no {name}; it has one static int8 scheme (asymmetric "
                "activations, symmetric weights of full range), and one with 16-bit activations; "
                f"leave {name} out"
            )
    from trimtab_compressor.passes.tflite_rules import static_rules  # noqa: PLC0415 - heavy

    learned = find_tflite_ranges(stage.source, stage)
    findings = quantize_tflite(
        stage, static_rules(spec), {name: (row.low, row.high) for name, row in learned.items()}
    )
    return {**findings, **note_ranges(stage, learned)}


def write_qdq(
    source: Path,
    target: Path,
    spec: QuantizeStatic,
    excluded: list[str],
    ranges: dict[str, Range],
) -> None:
    """Insert quantizers where ONNX Runtime has integer kernels.

    Args:
        source: Prepared model.
        target: Written.
        spec: Its `excluded` is not looked at.
        excluded: Nodes that stay in float.
        ranges: By activation.
    """
    from onnxruntime.quantization import (  # noqa: PLC0415 - heavy
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.calibrate import (  # noqa: PLC0415
        TensorsData,
        save_tensors_data,
    )

    found = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    table = source.with_name("ranges.json")
    save_tensors_data(TensorsData(CalibrationMethod.MinMax, found), table)
    quantize_static(
        source,
        target,
        quant_format=QuantFormat.QDQ,
        per_channel=spec.is_per_channel,
        reduce_range=spec.is_range_reduced,
        activation_type=QuantType.QInt8 if spec.is_symmetric else QuantType.QUInt8,
        weight_type=QuantType.QUInt8 if spec.is_weight_unsigned else QuantType.QInt8,
        nodes_to_exclude=excluded,
        calibration_cache_path=table,
        extra_options={
            "ActivationSymmetric": spec.is_symmetric,
            "WeightSymmetric": not spec.is_weight_unsigned,
        },
    )
