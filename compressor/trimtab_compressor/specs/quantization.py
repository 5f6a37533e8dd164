"""Quantization of a model file after training.

What a layer is called: ONNX, the name of its node (of its first output, where it has none); TFLite,
the name of its output. `trimtab-compressor inspect` lists them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from trimtab_compressor.specs.base import FileSpec, Need

Calibrator = Literal["minmax", "moving_average", "percentile", "entropy"]
FloatType = Literal["float32", "float16"]

LOWEST_PERCENTILE = 50.0


@dataclass(frozen=True, kw_only=True)
class QuantizeDynamic(FileSpec):
    """Weights to int8 in the file; activations are quantized while the model runs.

    Args:
        is_range_reduced: ONNX only: weights keep to 7 bits, see QuantizeStatic.
        is_per_channel: ONNX only: one weight scale per output channel. In TFLite convolutions have
            them and dense layers have not.
        has_convolutions: ONNX only: convolutions too, which smaller files pay for with time (ADR
            0003). TFLite has fast kernels for them and always takes them.
        excluded: Names of layers that stay in float.
    """

    pass_name: ClassVar[str] = "quantize_dynamic"  # noqa: S105 - a name, not a password
    revision: ClassVar[int] = 2
    is_range_reduced: bool = False
    is_per_channel: bool = False
    has_convolutions: bool = False
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class QuantizeStatic(FileSpec):
    """Weights and activations to integers, with ranges from the calibration samples.

    ONNX has three pairs of types: U8S8 (the default), S8S8 (`is_symmetric`), U8U8
    (`is_weight_unsigned`).

    Args:
        is_symmetric: ONNX only: signed activations around zero; else with a zero point of their own.
        is_per_channel: One weight scale per output channel.
        is_range_reduced: ONNX only: weights keep to 7 bits, so that x86 CPUs without VNNI cannot
            saturate.
        is_weight_unsigned: ONNX only: weights with a zero point of their own, which saturate nowhere.
        activation_bits: 8, or 16 (TFLite only; symmetric then).
        calibrator: How ranges follow from what was seen: the whole of it; a moving average of each
            sample's; all but the farthest values; or what loses the least information.
        percentile: Of the values that the range holds; calibrator "percentile" only.
        excluded: Names of layers that stay in float.
        excluded_type: In which type their weights are stored.
    """

    pass_name: ClassVar[str] = "quantize_static"  # noqa: S105 - a name, not a password
    revision: ClassVar[int] = 2
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})
    is_symmetric: bool = False
    is_per_channel: bool = True
    is_range_reduced: bool = False
    is_weight_unsigned: bool = False
    activation_bits: int = 8
    calibrator: Calibrator = "minmax"
    percentile: float = 99.99
    excluded: tuple[str, ...] = ()
    excluded_type: FloatType = "float32"

    def __post_init__(self) -> None:
        """Refuse what no runtime computes."""
        self.check(self.activation_bits in (8, 16), "activation_bits", "give 8 or 16")
        self.check(
            LOWEST_PERCENTILE <= self.percentile <= 100,
            "percentile",
            f"it must lie between {LOWEST_PERCENTILE:g} and 100",
        )
        self.check(
            not (self.is_symmetric and self.is_weight_unsigned),
            "is_weight_unsigned",
            "no runtime multiplies signed activations by unsigned weights; leave one of "
            "is_symmetric and is_weight_unsigned out",
        )


@dataclass(frozen=True, kw_only=True)
class QuantizeWeights(FileSpec):
    """Weights to integers in the file; everything is computed in float.

    Args:
        bits: 8 or 4.
        block_size: ONNX only: how many weights of a column share a scale; a power of 2 from 16 on.
        is_symmetric: Around zero; else every block has a zero point, which TFLite has not.
        excluded: Names of layers that keep their float weights.
    """

    pass_name: ClassVar[str] = "quantize_weights"  # noqa: S105 - a name, not a password
    bits: int = 8
    block_size: int = 32
    is_symmetric: bool = True
    excluded: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what has no kernel."""
        self.check(self.bits in (4, 8), "bits", "give 4 or 8")
        self.check(
            self.block_size in (16, 32, 64, 128, 256),
            "block_size",
            "give 16, 32, 64, 128 or 256",
        )


@dataclass(frozen=True, kw_only=True)
class QuantizeFloat16(FileSpec):
    """Weights to float16 in the file; everything is computed in float32.

    Args:
        excluded: Names of layers that keep float32 weights.
    """

    pass_name: ClassVar[str] = "quantize_float16"  # noqa: S105 - a name, not a password
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class QuantizeVerified(FileSpec):
    """Climb the ladder of static quantization until no more accuracy is lost than is allowed.

    Args:
        max_drop: In percentage points, of the test samples' accuracy; without labels, of the share
            of answers that the float model gives too.
        is_symmetric: As of QuantizeStatic.
        is_range_reduced: As of QuantizeStatic.
    """

    pass_name: ClassVar[str] = "quantize_verified"  # noqa: S105 - a name, not a password
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION, Need.VALIDATION})
    max_drop: float = 0.5
    is_symmetric: bool = False
    is_range_reduced: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no drop."""
        self.check(0 <= self.max_drop <= 100, "max_drop", "give points between 0 and 100")
