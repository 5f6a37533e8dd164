"""The port of a runtime: load one model, run it, say what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy


@dataclass(frozen=True)
class InputSpec:
    """An input as the runtime sees it; free dimensions are 1."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class RuntimeIdentity:
    """What ran the model."""

    version: str
    package: str
    providers: tuple[str, ...]


class LoadedModel(Protocol):
    """A model that is ready to run.

    Raises:
        ModelError: From every method that loads or runs.
    """

    def inputs(self) -> tuple[InputSpec, ...]:
        """What must be fed."""

    def bind(self, feeds: Mapping[str, numpy.ndarray[Any, Any]]) -> Callable[[], object]:
        """Set the inputs, and give a function that does one inference and nothing else."""

    def outputs(self) -> dict[str, numpy.ndarray[Any, Any]]:
        """The outputs of the newest inference, by name."""


class Runtime(Protocol):
    """A library that executes model files."""

    def identity(self) -> RuntimeIdentity:
        """Version and package; the library is imported by now."""

    def load(self, path: Path, threads: int, *, is_spinning_allowed: bool) -> LoadedModel:
        """Load a model file."""
