"""What AI Edge Quantizer is told, by pass; importing this imports it. Later rules stand above earlier ones.

A rule's scope is a pattern that is searched in the name of a layer's output.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from trimtab_compressor.passes.tflite_files import Rules
from trimtab_compressor.quiet import quiet
from trimtab_compressor.specs.quantization import (
    QuantizeDynamic,
    QuantizeFloat16,
    QuantizeStatic,
    QuantizeWeights,
)

with quiet():
    from ai_edge_quantizer import algorithm_manager, qtyping, recipe_manager

_OPERATORS = qtyping.TFLOperationName
_GRAIN = qtyping.QuantGranularity
_ALGORITHMS = algorithm_manager.AlgorithmName
ALL = ".*"


def static_rules(spec: QuantizeStatic, scope: str = ALL) -> Rules:
    """Integer weights and activations in a scope; inputs and outputs of the model stay float."""
    rules = recipe_manager.RecipeManager()
    rules.add_static_config(
        scope,
        _OPERATORS.ALL_SUPPORTED,
        activation_num_bits=spec.activation_bits,
        weight_num_bits=8,
        weight_granularity=_GRAIN.CHANNELWISE if spec.is_per_channel else _GRAIN.TENSORWISE,
    )
    for operator in (_OPERATORS.INPUT, _OPERATORS.OUTPUT):
        rules.add_quantization_config(ALL, operator, algorithm_key=_ALGORITHMS.NO_QUANTIZE)
    _leave_out(rules, spec.excluded)
    if spec.excluded_type == "float16":
        for layer in spec.excluded:
            _store_float16(rules, pattern_of(layer))
    return _finish(rules)


def dynamic_rules(spec: QuantizeDynamic) -> Rules:
    """Convolutions per channel, dense layers per tensor."""
    rules = recipe_manager.RecipeManager()
    for operator, grain in (
        (_OPERATORS.ALL_SUPPORTED, _GRAIN.CHANNELWISE),
        (_OPERATORS.FULLY_CONNECTED, _GRAIN.TENSORWISE),
    ):
        rules.add_dynamic_config(ALL, operator, 8, granularity=grain)
    _leave_out(rules, spec.excluded)
    return _finish(rules)


def weight_rules(spec: QuantizeWeights) -> Rules:
    """Integers with a DEQUANTIZE behind them."""
    rules = recipe_manager.RecipeManager()
    rules.add_weight_only_config(ALL, _OPERATORS.ALL_SUPPORTED, spec.bits)
    _leave_out(rules, spec.excluded)
    return _finish(rules)


def float16_rules(spec: QuantizeFloat16) -> Rules:
    """Halves with a DEQUANTIZE behind them."""
    rules = recipe_manager.RecipeManager()
    _store_float16(rules, ALL)
    _leave_out(rules, spec.excluded)
    return _finish(rules)


def pattern_of(layer: str) -> str:
    """A pattern that fits one layer's scope: the names of its outputs, each with a ';' behind."""
    return f"^{re.escape(layer)};"


def _store_float16(rules: Any, scope: str) -> None:
    rules.add_quantization_config(
        scope,
        _OPERATORS.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(
                num_bits=16, dtype=qtyping.TensorDataType.FLOAT
            ),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=_ALGORITHMS.FLOAT_CASTING,
    )


def _leave_out(rules: Any, excluded: Iterable[str]) -> None:
    for layer in excluded:
        rules.add_quantization_config(
            pattern_of(layer), _OPERATORS.ALL_SUPPORTED, algorithm_key=_ALGORITHMS.NO_QUANTIZE
        )


def _finish(rules: Any) -> Rules:
    found: Rules = rules.get_quantization_recipe()
    return found
