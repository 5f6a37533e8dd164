"""Whether a recipe can be carried out on what there is; pure, and asked before anything is computed."""

from __future__ import annotations

from trimtab_compressor.recipe import Recipe
from trimtab_compressor.recipe_book import BASE_PASSES
from trimtab_compressor.specs.base import Need, NetworkSpec
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.manifest import ModelFormat

REMEDIES: dict[Need, str] = {
    Need.NETWORK: "a model file has none: give a task file with a PyTorch network, or a recipe of passes "
    "over files alone",
    Need.TRAINING_INPUTS: "give a task file with training samples",
    Need.TRAINING_LABELS: "give training samples with labels in the task file",
    Need.WIDTHS: "let the task's build_model be a function of the width",
    Need.STUDENT: "give the task a build_student",
    Need.CALIBRATION: "give some with --data or --calibration (a task: in calibration)",
    Need.VALIDATION: "give some with --data (a task: in test)",
    Need.TEST_LABELS: "give them with --labels (a task: in test)",
}
"""What a person can do, by what is missing."""


def network_passes_of(recipe: Recipe, has: frozenset[Need]) -> tuple[NetworkSpec, ...]:
    """The passes over the network that a recipe means for this subject.

    A recipe without any begins with the base. A model file is a base itself, so what only makes the
    base is nothing there.
    """
    if Need.NETWORK in has:
        return recipe.network_passes or BASE_PASSES
    return () if recipe.network_passes == BASE_PASSES else recipe.network_passes


def check_needs(recipe: Recipe, model_format: ModelFormat, has: frozenset[Need]) -> None:
    """Refuse a recipe of which a pass lacks something.

    Raises:
        ConfigError: `config.missing`: names the pass, what is missing, and the remedy.
    """
    for spec in (*network_passes_of(recipe, has), *recipe.file_passes[model_format]):
        for need in Need:  # in this order, so that the network is named before its data
            if need in spec.all_needs() and need not in has:
                raise ConfigError(
                    f"recipe {recipe.name}: {spec.pass_name} needs {_words(need)}; {REMEDIES[need]}",
                    code=ErrorCode.CONFIG_MISSING,
                )


def _words(need: Need) -> str:
    return "a PyTorch network" if need is Need.NETWORK else need.value
