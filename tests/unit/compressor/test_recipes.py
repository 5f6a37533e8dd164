"""The table of recipes, and the ladder over it."""

from __future__ import annotations

import pytest

from trimtab_compressor.recipes import BASE_RECIPE, RECIPES, Choice, find_recipe, list_choices
from trimtab_compressor.search.ladder import LadderSearch
from trimtab_compressor.specs.distillation import Distill
from trimtab_compressor.specs.pruning import Prune, PruneChannels
from trimtab_compressor.specs.training import Train
from trimtab_protocol.budget import Outcome
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import ModelFormat

BOTH = (ModelFormat.ONNX, ModelFormat.TFLITE)


def test_every_recipe_trains_first_and_the_base_does_nothing_else() -> None:
    assert all(isinstance(row.network_passes[0], Train) for row in RECIPES.values())
    base = next(iter(RECIPES.values()))
    assert base.name == BASE_RECIPE
    assert len(base.network_passes) == 1
    assert set(base.file_passes.values()) == {()}


def test_no_two_candidates_are_the_same_and_there_are_at_most_twelve() -> None:
    made = [
        (recipe.network_passes, model_format, file_pass)
        for recipe in RECIPES.values()
        for model_format, file_pass in recipe.file_passes.items()
    ]
    assert all(made.count(row) == 1 for row in made)
    assert len(made) <= 12


def test_choices_come_gentlest_first_whatever_the_order_of_the_names() -> None:
    found = list_choices(["prune50_static_w8a8", "fp32"], BOTH)
    assert [str(row) for row in found] == [
        "fp32 (onnx)",
        "fp32 (tflite)",
        "prune50_static_w8a8 (onnx)",
        "prune50_static_w8a8 (tflite)",
    ]


def test_a_recipe_without_a_format_is_left_out_and_nothing_left_is_an_error() -> None:
    assert list_choices(["static_w8a8_sym"], BOTH) == (Choice("static_w8a8_sym", ModelFormat.ONNX),)
    with pytest.raises(ConfigError, match="cannot be made as tflite"):
        list_choices(["static_w8a8_sym"], (ModelFormat.TFLITE,))


def test_an_unknown_recipe_is_answered_with_near_names() -> None:
    with pytest.raises(ConfigError, match=r"did you mean .*prune50_static_w8a8"):
        find_recipe("prune50_static")
    with pytest.raises(ConfigError, match="dynamic_w8"):
        find_recipe("zzz")


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5])
def test_a_ratio_that_prunes_nothing_or_all_is_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="ratio"):
        PruneChannels(ratio=ratio)


def test_specs_refuse_what_cannot_work() -> None:
    with pytest.raises(ConfigError, match="round_to"):
        PruneChannels(ratio=0.5, round_to=0)
    with pytest.raises(ConfigError, match="width"):
        Distill(width=0.0)
    with pytest.raises(ConfigError, match="temperature"):
        Distill(temperature=0.0)
    with pytest.raises(ConfigError, match="soft_weight"):
        Distill(soft_weight=1.5)


def test_parameters_are_plain_and_complete() -> None:
    assert Prune(max_drop=0.5).parameters() == {
        "max_drop": 0.5,
        "is_fine_tuned": True,
        "soft_weight": 0.0,
        "temperature": 4.0,
    }
    found = PruneChannels(ratio=0.5, layer_ratios=("a=0.1", "b=0")).parameters()
    assert (found["ratio"], found["round_to"], found["is_fine_tuned"]) == (0.5, None, True)
    assert found["layer_ratios"] == "a=0.1, b=0"


def walk(ladder: LadderSearch, outcomes: dict[str, Outcome]) -> list[str]:
    asked = []
    while (choice := ladder.ask()) is not None:
        assert ladder.ask() == choice, "asking twice changes nothing"
        asked.append(choice.recipe)
        ladder.tell(choice, outcomes.get(choice.recipe, Outcome.FAIL))
    return asked


def test_the_ladder_stops_at_the_first_pass_and_goes_past_the_inconclusive() -> None:
    choices = list_choices([], (ModelFormat.ONNX,))
    outcomes = {"dynamic_w8": Outcome.INCONCLUSIVE, "static_w8a8_asym": Outcome.PASS}
    assert walk(LadderSearch(choices), outcomes) == ["fp32", "dynamic_w8", "static_w8a8_asym"]


def test_the_ladder_can_walk_to_the_end() -> None:
    choices = list_choices([], (ModelFormat.ONNX,))
    ladder = LadderSearch(choices, stops_at_pass=False)
    assert walk(ladder, {"fp32": Outcome.PASS}) == [row.recipe for row in choices]
