"""What the weights of a file are stored as, and whether a quantizer did anything. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_compressor.passes.stage import Findings
from trimtab_protocol.errors import ErrorCode, ModelError


@dataclass(frozen=True)
class WeightTypes:
    """Numbers of constants of two or more dimensions, by type.

    Args:
        integer: Of at most 8 bits.
        float16: Half precision.
        float32: What is left.
    """

    integer: int = 0
    float16: int = 0
    float32: int = 0


def report_change(before: WeightTypes, after: WeightTypes) -> Findings:
    """Make sure that weights became smaller, and say how many.

    Args:
        before: Of the float file.
        after: Of the quantized one.

    Raises:
        ModelError: `model.unreadable`: not one weight was changed.
    """
    if after.integer <= before.integer and after.float16 <= before.float16:
        raise ModelError(
            "nothing was quantized: the model has no layer with constant float weights that this "
            "pass can quantize; use another recipe, or the float model it was made of if it is "
            "quantized already",
            code=ErrorCode.MODEL_UNREADABLE,
        )
    kinds = {
        "integer_weights": after.integer,
        "float16_weights": after.float16,
        "float32_weights": after.float32,
    }
    return {name: count for name, count in kinds.items() if count or name != "float16_weights"}
