"""LiteRT, and tflite-runtime where LiteRT has no wheel (32-bit Raspberry Pi OS)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab_agent.runtimes.base import (
    InputSpec,
    LoadedModel,
    RuntimeIdentity,
    code_of_failure,
)
from trimtab_protocol.errors import ErrorCode, ModelError

if TYPE_CHECKING:
    import numpy

PACKAGES = (
    ("ai_edge_litert.interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "tflite-runtime"),
)
"""Tried in this order."""


class LiteRt:
    """The adapter. Importing the library happens in the constructor, so that it can be timed."""

    def __init__(self) -> None:
        self._library, self._package = _import_first()

    def identity(self) -> RuntimeIdentity:
        """Version and package."""
        import importlib.metadata  # noqa: PLC0415 - the resident imports this module, and stays small

        version = importlib.metadata.version(self._package)
        return RuntimeIdentity(version, self._package, ("XNNPACK",))

    def load(self, path: Path, threads: int, *, is_spinning_allowed: bool) -> LoadedModel:  # noqa: ARG002 - LiteRT has no such switch
        """Make an interpreter and allocate its tensors.

        Raises:
            ModelError: `model.load`, with the library's own message.
        """
        try:
            interpreter = self._library.Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
        except Exception as error:
            code = code_of_failure(error, ErrorCode.MODEL_LOAD)
            raise ModelError(f"{self._package} cannot load it: {error}", code=code) from error
        return LiteRtModel(interpreter)


class LiteRtModel:
    """One interpreter."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self._inputs = interpreter.get_input_details()

    def inputs(self) -> tuple[InputSpec, ...]:
        """What must be fed."""
        return tuple(
            InputSpec(
                row["name"], row["dtype"].__name__.rstrip("_"), tuple(int(n) for n in row["shape"])
            )
            for row in self._inputs
        )

    def bind(self, feeds: Mapping[str, numpy.ndarray[Any, Any]]) -> Callable[[], object]:
        """Set the input tensors once, and invoke."""
        try:
            for row in self._inputs:
                self._interpreter.set_tensor(row["index"], feeds[row["name"]])
        except (ValueError, KeyError) as error:
            raise ModelError(f"input does not fit the model: {error}") from error
        invoke = self._interpreter.invoke

        def infer() -> object:
            try:
                invoke()
            except (RuntimeError, ValueError) as error:
                code = code_of_failure(error, ErrorCode.MODEL_CRASH)
                raise ModelError(f"LiteRT cannot run it: {error}", code=code) from error
            return None

        return infer

    def outputs(self) -> dict[str, numpy.ndarray[Any, Any]]:
        """Outputs of the newest invocation, by name."""
        return {
            row["name"]: self._interpreter.get_tensor(row["index"])
            for row in self._interpreter.get_output_details()
        }


def _import_first() -> tuple[Any, str]:
    for module, package in PACKAGES:
        try:
            return importlib.import_module(module), package
        except ImportError:
            continue
    raise ModelError(
        "neither ai-edge-litert nor tflite-runtime is installed: pip install 'trimtab[tflite]'"
    )
