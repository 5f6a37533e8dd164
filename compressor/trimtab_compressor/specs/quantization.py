"""Quantization of a model file after training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trimtab_compressor.specs.base import FileSpec, Need


@dataclass(frozen=True, kw_only=True)
class QuantizeDynamic(FileSpec):
    """Weights to int8 in the file; activations are quantized while the model runs.

    Args:
        is_range_reduced: ONNX only: weights keep to 7 bits, see QuantizeStatic.
    """

    pass_name: ClassVar[str] = "quantize_dynamic"  # noqa: S105 - a name, not a password
    is_range_reduced: bool = False


@dataclass(frozen=True, kw_only=True)
class QuantizeStatic(FileSpec):
    """Weights and activations to int8, with ranges from the calibration samples.

    Args:
        is_symmetric: Signed activations around zero; else with a zero point of their own.
        is_per_channel: One weight scale per output channel.
        is_range_reduced: Weights keep to 7 bits, so that x86 CPUs without VNNI cannot saturate.
    """

    pass_name: ClassVar[str] = "quantize_static"  # noqa: S105 - a name, not a password
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})
    is_symmetric: bool = False
    is_per_channel: bool = True
    is_range_reduced: bool = False
