"""ONNX Runtime, on its CPU provider."""

from __future__ import annotations

import os
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

DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
PROVIDERS = ["CPUExecutionProvider"]


class OnnxRuntime:
    """The adapter. Importing the library happens in the constructor, so that it can be timed."""

    def __init__(self) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime  # noqa: PLC0415 - the import is one of the phases that are measured

        self._library = onnxruntime
        onnxruntime.set_default_logger_severity(4)

    def identity(self) -> RuntimeIdentity:
        """Version and package."""
        return RuntimeIdentity(self._library.__version__, "onnxruntime", tuple(PROVIDERS))

    def load(self, path: Path, threads: int, *, is_spinning_allowed: bool) -> LoadedModel:
        """Create a session with explicit threads and spinning.

        Raises:
            ModelError: `model.load`, with the library's own message.
        """
        options = self._library.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        spinning = "1" if is_spinning_allowed else "0"
        options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        options.add_session_config_entry("session.inter_op.allow_spinning", spinning)
        try:
            session = self._library.InferenceSession(str(path), options, providers=PROVIDERS)
        except Exception as error:
            code = code_of_failure(error, ErrorCode.MODEL_LOAD)
            raise ModelError(f"ONNX Runtime cannot load it: {error}", code=code) from error
        return OnnxModel(session)


class OnnxModel:
    """One session."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._results: list[numpy.ndarray[Any, Any]] = []

    def inputs(self) -> tuple[InputSpec, ...]:
        """What must be fed."""
        return tuple(_input_spec(row) for row in self._session.get_inputs())

    def bind(self, feeds: Mapping[str, numpy.ndarray[Any, Any]]) -> Callable[[], object]:
        """Run with these inputs, again and again."""
        names, arrays, run = None, dict(feeds), self._session.run

        def infer() -> object:
            try:
                self._results = run(names, arrays)
            except Exception as error:
                code = code_of_failure(error, ErrorCode.MODEL_CRASH)
                raise ModelError(f"ONNX Runtime cannot run it: {error}", code=code) from error
            return None

        return infer

    def outputs(self) -> dict[str, numpy.ndarray[Any, Any]]:
        """Outputs of the newest run, by name."""
        names = [row.name for row in self._session.get_outputs()]
        return dict(zip(names, self._results, strict=True))


def _input_spec(row: Any) -> InputSpec:
    if row.type not in DTYPES:
        raise ModelError(f"input {row.name} has the type {row.type}, which cannot be fed")
    shape = tuple(size if isinstance(size, int) and size > 0 else 1 for size in row.shape)
    return InputSpec(row.name, DTYPES[row.type], shape)
