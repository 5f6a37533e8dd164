"""RECIPES: what can be done to a model, from the gentlest to the strongest.

A recipe is passes over the network, then passes over the exported file. Its name decodes:
`prune50_static_w8a8` removes half of the channels, then quantizes weights and activations to 8 bits
with calibrated ranges. The order of the table is the order in which a search tries them.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimtab_compressor.specs.base import FileSpec, NetworkSpec
from trimtab_compressor.specs.distillation import Distill
from trimtab_compressor.specs.pruning import PruneChannels
from trimtab_compressor.specs.quantization import QuantizeDynamic, QuantizeStatic
from trimtab_compressor.specs.training import Train
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.manifest import ModelFormat

ONNX, TFLITE = ModelFormat.ONNX, ModelFormat.TFLITE
BASE_RECIPE = "fp32"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An ordered list of passes.

    Args:
        name: Decodable.
        summary: For people, one line.
        network_passes: Over the network, in order; the first is always `Train`.
        file_passes: By format, the passes over the exported file, in order. The keys are the formats
            that this recipe can make.
    """

    name: str
    summary: str
    network_passes: tuple[NetworkSpec, ...]
    file_passes: Mapping[ModelFormat, tuple[FileSpec, ...]]


_FLOAT: dict[ModelFormat, tuple[FileSpec, ...]] = {ONNX: (), TFLITE: ()}
_STATIC: dict[ModelFormat, tuple[FileSpec, ...]] = {
    ONNX: (QuantizeStatic(is_range_reduced=True),),
    TFLITE: (QuantizeStatic(calibrator="moving_average"),),
}
_DYNAMIC: dict[ModelFormat, tuple[FileSpec, ...]] = {
    ONNX: (QuantizeDynamic(is_range_reduced=True),),
    TFLITE: (QuantizeDynamic(),),
}

_ALL = (
    Recipe(
        name=BASE_RECIPE,
        summary="the base network, exported and nothing else",
        network_passes=(Train(),),
        file_passes=_FLOAT,
    ),
    Recipe(
        name="dynamic_w8",
        summary="int8 weights, activations quantized while running (ONNX: dense layers, 7 bits)",
        network_passes=(Train(),),
        file_passes=_DYNAMIC,
    ),
    Recipe(
        name="static_w8a8_asym",
        summary="int8, activations with a zero point (ONNX: weights kept to 7 bits of range)",
        network_passes=(Train(),),
        file_passes=_STATIC,
    ),
    Recipe(
        name="static_w8a8_sym",
        summary="int8, activations around zero; for ARM, slow on x86",
        network_passes=(Train(),),
        file_passes={ONNX: (QuantizeStatic(is_symmetric=True),)},
    ),
    Recipe(
        name="distill50",
        summary="a float student of half the width, taught by the base",
        network_passes=(Train(), Distill(width=0.5)),
        file_passes={ONNX: ()},
    ),
    Recipe(
        name="prune50_static_w8a8",
        summary="half of the channels removed and fine-tuned, then int8",
        network_passes=(Train(), PruneChannels(ratio=0.5)),
        file_passes=_STATIC,
    ),
    Recipe(
        name="prune75_distill_static_w8a8",
        summary="three quarters of the channels removed, taught by the base, then int8",
        network_passes=(Train(), PruneChannels(ratio=0.75, is_fine_tuned=False), Distill()),
        file_passes=_STATIC,
    ),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}


@dataclass(frozen=True)
class Choice:
    """One candidate to be: a recipe in one format."""

    recipe: str
    format: ModelFormat

    def __str__(self) -> str:
        return f"{self.recipe} ({self.format.value})"


def find_recipe(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        ConfigError: There is none of that name; the message says which names are near.
    """
    if name in RECIPES:
        return RECIPES[name]
    near = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.4) or list(RECIPES)
    raise ConfigError(
        f"unknown recipe '{name}'; did you mean {' or '.join(near)}?", code=ErrorCode.CONFIG_MISSING
    )


def list_choices(names: Sequence[str], formats: Sequence[ModelFormat]) -> tuple[Choice, ...]:
    """All candidates of these recipes and formats, gentlest first.

    Args:
        names: Recipes in any order; empty for all.
        formats: In the order of preference within a recipe.

    Raises:
        ConfigError: A name is unknown, or nothing is left.
    """
    wanted = {find_recipe(name).name for name in names} or set(RECIPES)
    choices = tuple(
        Choice(recipe.name, model_format)
        for recipe in _ALL
        for model_format in formats
        if recipe.name in wanted and model_format in recipe.file_passes
    )
    if not choices:
        raise ConfigError(
            f"{', '.join(names)} cannot be made as {', '.join(row.value for row in formats)}; "
            "choose another format"
        )
    return choices
