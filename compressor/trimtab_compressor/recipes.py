"""SHIPPED: what can be done to a model, from the gentlest to the strongest.

A name decodes: `prune50_static_w8a8` removes half of the channels, then quantizes weights and
activations to 8 bits with calibrated ranges. The order of the table is the order in which a search
tries them.
"""

from __future__ import annotations

from collections.abc import Sequence

from trimtab_compressor.recipe import Choice, Recipe
from trimtab_compressor.recipe_book import BASE_PASSES, BASE_RECIPE, RecipeBook
from trimtab_compressor.specs.base import FileSpec
from trimtab_compressor.specs.distillation import Distill
from trimtab_compressor.specs.pruning import PruneChannels
from trimtab_compressor.specs.quantization import QuantizeDynamic, QuantizeStatic
from trimtab_compressor.specs.training import Train
from trimtab_protocol.manifest import ModelFormat

__all__ = [
    "BASE_PASSES",
    "BASE_RECIPE",
    "RECIPES",
    "SHIPPED",
    "Choice",
    "Recipe",
    "RecipeBook",
    "find_recipe",
    "list_choices",
]

ONNX, TFLITE = ModelFormat.ONNX, ModelFormat.TFLITE

_FLOAT: dict[ModelFormat, tuple[FileSpec, ...]] = {ONNX: (), TFLITE: ()}
_STATIC: dict[ModelFormat, tuple[FileSpec, ...]] = {
    ONNX: (QuantizeStatic(is_range_reduced=True),),
    TFLITE: (QuantizeStatic(calibrator="moving_average"),),
}
_DYNAMIC: dict[ModelFormat, tuple[FileSpec, ...]] = {
    ONNX: (QuantizeDynamic(is_range_reduced=True),),
    TFLITE: (QuantizeDynamic(),),
}

SHIPPED = RecipeBook(
    (
        Recipe(
            name=BASE_RECIPE,
            summary="the base network, exported and nothing else",
            network_passes=BASE_PASSES,
            file_passes=_FLOAT,
        ),
        Recipe(
            name="dynamic_w8",
            summary="int8 weights, activations quantized while running (ONNX: dense layers, 7 bits)",
            network_passes=BASE_PASSES,
            file_passes=_DYNAMIC,
        ),
        Recipe(
            name="static_w8a8_asym",
            summary="int8, activations with a zero point (ONNX: weights kept to 7 bits of range)",
            network_passes=BASE_PASSES,
            file_passes=_STATIC,
        ),
        Recipe(
            name="static_w8a8_sym",
            summary="int8, activations around zero (weights kept to 7 bits of range); for ARM, slow on x86",
            network_passes=BASE_PASSES,
            file_passes={ONNX: (QuantizeStatic(is_symmetric=True, is_range_reduced=True),)},
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
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in SHIPPED}


def find_recipe(name: str, book: RecipeBook = SHIPPED) -> Recipe:
    """Look a recipe up.

    Raises:
        ConfigError: There is none of that name; the message says which names are near.
    """
    return book.find(name)


def list_choices(
    names: Sequence[str], formats: Sequence[ModelFormat], book: RecipeBook = SHIPPED
) -> tuple[Choice, ...]:
    """All candidates of these recipes and formats, gentlest first; see RecipeBook.choices."""
    return book.choices(names, formats)
