"""A recipe that lacks something is refused before anything is computed, with the remedy."""

from __future__ import annotations

import pytest

from support.compressor_rig import a_task
from trimtab_compressor.needs import REMEDIES, check_needs, network_passes_of
from trimtab_compressor.recipe import Recipe
from trimtab_compressor.recipe_book import BASE_PASSES
from trimtab_compressor.recipes import RECIPES
from trimtab_compressor.specs.base import Need
from trimtab_compressor.specs.pruning import PruneChannels
from trimtab_compressor.specs.quantization import QuantizeStatic
from trimtab_compressor.specs.training import Train
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.manifest import ModelFormat

ONNX = ModelFormat.ONNX
EVERYTHING = frozenset(Need)
STATIC = Recipe(name="q", file_passes={ONNX: (QuantizeStatic(),)})


def test_a_task_has_what_every_shipped_recipe_needs() -> None:
    for recipe in RECIPES.values():
        for model_format in recipe.file_passes:
            check_needs(recipe, model_format, a_task().has)


def test_a_model_file_takes_recipes_that_only_make_the_base_and_change_the_file() -> None:
    has = frozenset({Need.CALIBRATION})
    for name in ("fp32", "dynamic_w8", "static_w8a8_asym"):
        check_needs(RECIPES[name], ONNX, has)
        assert network_passes_of(RECIPES[name], has) == ()
    with pytest.raises(ConfigError) as caught:
        check_needs(RECIPES["prune50_static_w8a8"], ONNX, has)
    assert "train needs a PyTorch network; a model file has none" in caught.value.message
    assert caught.value.code is ErrorCode.CONFIG_MISSING


def test_what_is_missing_is_named_with_its_pass() -> None:
    with pytest.raises(
        ConfigError, match="q: quantize_static needs calibration samples; give some"
    ):
        check_needs(STATIC, ONNX, frozenset())
    pruned = Recipe(name="p", network_passes=(PruneChannels(ratio=0.5),), file_passes={ONNX: ()})
    has = EVERYTHING - {Need.TRAINING_LABELS}
    with pytest.raises(ConfigError, match="prune_channels needs training labels"):
        check_needs(pruned, ONNX, has)


def test_every_need_has_a_remedy() -> None:
    assert set(REMEDIES) == set(Need)


def test_a_recipe_without_network_passes_begins_with_the_base_and_none_must_begin_with_train() -> (
    None
):
    assert network_passes_of(STATIC, EVERYTHING) == BASE_PASSES
    other = Recipe(
        name="p", network_passes=(PruneChannels(ratio=0.5), Train()), file_passes={ONNX: ()}
    )
    assert network_passes_of(other, EVERYTHING) == other.network_passes
