"""The port of a runtime: load one model, run it, say what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trimtab_protocol.errors import ErrorCode

if TYPE_CHECKING:
    import numpy

MEMORY_WORDS = ("bad_alloc", "MemoryError", "Cannot allocate", "Failed to allocate memory")
"""How Python, C++, the C library and ONNX Runtime say that there is no memory left."""


def code_of_failure(failure: Exception | str, otherwise: ErrorCode) -> ErrorCode:
    """`model.memory` if a library's words say so, which mostly tell it in no other way."""
    text = failure if isinstance(failure, str) else repr(failure)  # Python's own has no words
    return ErrorCode.MODEL_MEMORY if any(word in text for word in MEMORY_WORDS) else otherwise


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
