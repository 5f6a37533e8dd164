"""A book of recipes: the shipped ones, and those that a person brought."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence

from trimtab_compressor.recipe import Choice, Recipe
from trimtab_compressor.specs.base import NetworkSpec
from trimtab_compressor.specs.training import Train
from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.manifest import ModelFormat

BASE_RECIPE = "fp32"
BASE_PASSES: tuple[NetworkSpec, ...] = (Train(),)
"""What makes the base of a task."""


class RecipeBook:
    """Recipes by name, in order: the gentlest first.

    Args:
        recipes: In order.

    Raises:
        ConfigError: Two have the same name.
    """

    def __init__(self, recipes: Iterable[Recipe]) -> None:
        self._recipes: dict[str, Recipe] = {}
        for recipe in recipes:
            if recipe.name in self._recipes:
                raise ConfigError(
                    f"two recipes are named '{recipe.name}'; names are how candidates are told apart, "
                    "so give one of them another"
                )
            self._recipes[recipe.name] = recipe

    def __iter__(self) -> Iterator[Recipe]:
        return iter(self._recipes.values())

    def extend(self, recipes: Iterable[Recipe]) -> RecipeBook:
        """A new book with more recipes at its end.

        Raises:
            ConfigError: A name is taken.
        """
        return RecipeBook((*self, *recipes))

    def find(self, name: str) -> Recipe:
        """Look a recipe up.

        Raises:
            ConfigError: There is none of that name; the message says which names are near.
        """
        if name in self._recipes:
            return self._recipes[name]
        near = difflib.get_close_matches(name, self._recipes, n=3, cutoff=0.4)
        raise ConfigError(
            f"unknown recipe '{name}'; did you mean {' or '.join(near or self._recipes)}?",
            code=ErrorCode.CONFIG_MISSING,
        )

    def choices(self, names: Sequence[str], formats: Sequence[ModelFormat]) -> tuple[Choice, ...]:
        """All candidates of these recipes and formats, in the order of the book.

        Args:
            names: Recipes in any order; empty for all.
            formats: In the order of preference within a recipe.

        Raises:
            ConfigError: A name is unknown, or nothing is left.
        """
        wanted = {self.find(name).name for name in names} or set(self._recipes)
        choices = tuple(
            Choice(recipe.name, model_format)
            for recipe in self
            for model_format in formats
            if recipe.name in wanted and model_format in recipe.file_passes
        )
        if not choices:
            raise ConfigError(
                f"{', '.join(names)} cannot be made as {', '.join(row.value for row in formats)}; "
                "choose another format"
            )
        return choices
