"""A recipe: passes over the network, then passes over the exported file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_compressor.specs.base import FileSpec, NetworkSpec, Spec
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import ModelFormat

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""A recipe's name is part of file names and of the lineage."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An ordered list of passes.

    Args:
        name: Decodable.
        summary: For people, one line.
        network_passes: Over the network, in order; empty to begin with the base as the base recipe
            makes it, which for a model file is the file itself.
        file_passes: By format, the passes over the exported file, in order. The keys are the formats
            that this recipe can make.

    Raises:
        ConfigError: The name cannot name files, there is no format, or a pass stands where it
            cannot work.
    """

    name: str
    summary: str = ""
    network_passes: tuple[NetworkSpec, ...] = ()
    file_passes: Mapping[ModelFormat, tuple[FileSpec, ...]]

    def __post_init__(self) -> None:
        """Refuse what cannot be carried out."""
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"recipe name '{self.name}' cannot name files; use lowercase letters, digits, '.', "
                "'_' and '-', at most 64"
            )
        if not self.file_passes:
            raise ConfigError(f"recipe {self.name}: it makes no format; give at least one")
        for spec in self.network_passes:
            self._check_network_pass(spec)
        for model_format, specs in self.file_passes.items():
            for file_spec in specs:
                self._check_file_pass(file_spec, model_format)

    def _check_network_pass(self, spec: object) -> None:
        if not isinstance(spec, NetworkSpec):
            raise ConfigError(
                f"recipe {self.name}: {_name(spec)} is no pass over a network; move it to file_passes"
            )

    def _check_file_pass(self, spec: object, model_format: ModelFormat) -> None:
        if not isinstance(spec, FileSpec):
            raise ConfigError(
                f"recipe {self.name}: {_name(spec)} is no pass over a file; move it to network_passes"
            )
        if model_format not in spec.formats:
            known = " or ".join(sorted(row.value for row in spec.formats))
            raise ConfigError(
                f"recipe {self.name}: {spec.pass_name} does not exist for {model_format.value}, only "
                f"for {known}; leave it or the format out"
            )

    def passes(self, model_format: ModelFormat) -> tuple[Spec, ...]:
        """All passes of one format, in order."""
        return (*self.network_passes, *self.file_passes[model_format])


@dataclass(frozen=True)
class Choice:
    """One candidate to be: a recipe in one format."""

    recipe: str
    format: ModelFormat

    def __str__(self) -> str:
        return f"{self.recipe} ({self.format.value})"


def _name(spec: object) -> str:
    return str(getattr(spec, "pass_name", type(spec).__name__))
