"""Quantize a TFLite file with AI Edge Quantizer, and look at the result."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.quiet import quiet
from trimtab_compressor.runtimes.port import Arrays
from trimtab_protocol.errors import ErrorCode, ModelError

SIGNATURE = "serving_default"


class TfliteRecipe(str, Enum):
    """Which quantizer recipe to apply."""

    STATIC_INT8 = "static_int8"  # float inputs and outputs
    DYNAMIC_MIXED = "dynamic_mixed"  # convolutions per channel, dense layers per tensor


def quantize_tflite(source: Path, target: Path, recipe: TfliteRecipe, calibration: Arrays) -> None:
    """Quantize `source` into `target`.

    Args:
        source: Float TFLite file with one signature.
        target: Written, or not touched if something goes wrong.
        recipe: What to do.
        calibration: By tensor name, (n, *input shape); used by static recipes only.

    Raises:
        ModelError: The quantizer refused the file, or left it as it was.
    """
    with quiet():
        from ai_edge_quantizer import quantizer  # noqa: PLC0415 - heavy

        try:
            worker = quantizer.Quantizer(str(source), RECIPES[recipe]())
            ranges = None
            if worker.need_calibration:
                ranges = worker.calibrate({SIGNATURE: _batches(source, calibration)})
            worker.quantize(ranges).export_model(str(target), overwrite=True)
        except (ValueError, RuntimeError, KeyError) as error:
            raise ModelError(
                f"the TFLite quantizer refused the model: {error}", code=ErrorCode.MODEL_UNREADABLE
            ) from error
        check_is_quantized(target)


def is_quantized(path: Path) -> bool:
    """Whether the file holds int8 tensors."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - heavy

    return any(row["dtype"] is np.int8 for row in Interpreter(str(path)).get_tensor_details())


def check_is_quantized(path: Path) -> None:
    """Make sure that something became an 8-bit integer.

    Raises:
        ModelError: Nothing did.
    """
    if not is_quantized(path):
        raise ModelError(
            "nothing was quantized: the quantizer left every tensor as it was; use another recipe",
            code=ErrorCode.MODEL_UNREADABLE,
        )


def _batches(path: Path, calibration: Arrays) -> list[dict[str, AnyArray]]:
    """One sample at a time, by the signature's names for the tensors."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - heavy

    details = Interpreter(str(path)).get_signature_runner(SIGNATURE).get_input_details()
    rows = {name: calibration[row["name"]] for name, row in details.items()}
    count = len(next(iter(rows.values())))
    return [{name: row[at : at + 1] for name, row in rows.items()} for at in range(count)]


def _static_int8() -> list[dict[str, Any]]:
    from ai_edge_quantizer import qtyping, recipe, recipe_manager  # noqa: PLC0415 - heavy

    rules = recipe_manager.RecipeManager()
    rules.load_quantization_recipe(recipe.static_wi8_ai8())
    for operator in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        rules.add_quantization_config(
            regex=".*", operation_name=operator, algorithm_key="no_quantize"
        )
    found: list[dict[str, Any]] = rules.get_quantization_recipe()
    return found


def _dynamic_mixed() -> list[dict[str, Any]]:
    from ai_edge_quantizer import qtyping, recipe_manager  # noqa: PLC0415 - heavy

    operators, granularity = qtyping.TFLOperationName, qtyping.QuantGranularity
    rules = recipe_manager.RecipeManager()
    rules.add_dynamic_config(".*", operators.ALL_SUPPORTED, 8, granularity=granularity.CHANNELWISE)
    rules.add_dynamic_config(".*", operators.FULLY_CONNECTED, 8, granularity=granularity.TENSORWISE)
    found: list[dict[str, Any]] = rules.get_quantization_recipe()
    return found


RECIPES: dict[TfliteRecipe, Callable[[], list[dict[str, Any]]]] = {
    TfliteRecipe.STATIC_INT8: _static_int8,
    TfliteRecipe.DYNAMIC_MIXED: _dynamic_mixed,
}
