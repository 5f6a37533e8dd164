"""Static quantization: int8 weights and activations, ranges from calibration samples.

ONNX: QDQ. Asymmetric is U8 activations with S8 weights, symmetric is S8 with S8. Both are integer
kernels everywhere, but x86 CPUs without VNNI multiply U8 by S8 in pairs that saturate at 16 bits;
`is_range_reduced` keeps weights to 7 bits, where that cannot happen. TFLite: the one int8 scheme
it has (asymmetric activations, symmetric weights per channel), with float inputs and outputs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.passes.onnx_files import (
    calibration_batch,
    check_is_quantized,
    preprocess,
)
from trimtab_compressor.passes.stage import FileStage, Findings
from trimtab_compressor.passes.tflite_files import TfliteRecipe, quantize_tflite
from trimtab_compressor.quiet import quiet
from trimtab_compressor.runtimes.port import Arrays
from trimtab_compressor.specs.quantization import QuantizeStatic
from trimtab_protocol.errors import ConfigError


class ArrayReader:
    """Calibration batches in the shape that ONNX Runtime asks for."""

    def __init__(self, samples: Arrays, batch: int) -> None:
        count = len(next(iter(samples.values())))
        self._batches: Iterator[dict[str, AnyArray]] = iter(
            {name: rows[start : start + batch] for name, rows in samples.items()}
            for start in range(0, count, batch)
        )

    def get_next(self) -> dict[str, AnyArray] | None:
        """The next batch, or None after the last."""
        return next(self._batches, None)


def quantize_static_onnx(stage: FileStage[QuantizeStatic]) -> Findings:
    """Write the QDQ form of an ONNX model.

    Raises:
        ModelError: Nothing was quantized.
    """
    from onnxruntime.quantization import (  # noqa: PLC0415 - heavy
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    CalibrationDataReader.register(ArrayReader)
    spec = stage.spec
    with tempfile.TemporaryDirectory() as folder, quiet():
        prepared = preprocess(stage.source, Path(folder))
        draft = Path(folder) / "quantized.onnx"
        quantize_static(
            prepared,
            draft,
            ArrayReader(stage.calibration, calibration_batch(prepared)),
            quant_format=QuantFormat.QDQ,
            per_channel=spec.is_per_channel,
            reduce_range=spec.is_range_reduced,
            activation_type=QuantType.QInt8 if spec.is_symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": spec.is_symmetric, "WeightSymmetric": True},
        )
        check_is_quantized(draft)
        shutil.copyfile(draft, stage.target)
    return {}


def quantize_static_tflite(stage: FileStage[QuantizeStatic]) -> Findings:
    """Write the int8 form of a TFLite model.

    Raises:
        ConfigError: The spec asks for something that TFLite does not have.
        ModelError: Nothing was quantized.
    """
    spec = stage.spec
    if spec.is_symmetric or spec.is_range_reduced or not spec.is_per_channel:
        raise ConfigError(
            "TFLite has one static int8 scheme: asymmetric, per channel, full range; leave "
            "is_symmetric, is_range_reduced and is_per_channel at their defaults"
        )
    quantize_tflite(stage.source, stage.target, TfliteRecipe.STATIC_INT8, stage.calibration)
    return {}
