"""ONNX Runtime on the host's CPU.

EXACT is ORT_DISABLE_ALL: QuantizeLinear and DequantizeLinear run as written, around float kernels,
so no CPU's integer kernels can saturate. DEFAULT fuses them into the integer kernels of this CPU.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.runtimes.port import Arrays, Kernels, read_dtype
from trimtab_compressor.threads import thread_count
from trimtab_protocol.errors import ErrorCode, ModelError
from trimtab_protocol.manifest import IoSpec, TensorSpec

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _state

_LOAD_ERRORS = (
    _state.Fail,
    _state.InvalidArgument,
    _state.InvalidGraph,
    _state.InvalidProtobuf,
    _state.NoModel,
    _state.NoSuchFile,
    _state.NotImplemented,
    _state.RuntimeException,
    RuntimeError,
    ValueError,
)

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


class OnnxRuntimeRunner:
    """One session on one thread (or TRIMTAB_THREADS).

    Args:
        path: The model.
        kernels: Which arithmetic.

    Raises:
        ModelError: `model.unreadable`: not a model that this runtime can run.
    """

    def __init__(self, path: Path, kernels: Kernels) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count()
        options.log_severity_level = 4
        if kernels is Kernels.EXACT:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except _LOAD_ERRORS as error:
            raise ModelError(
                f"{path} cannot be read as an ONNX model: {_first_line(error)}",
                code=ErrorCode.MODEL_UNREADABLE,
            ) from error
        self._path = path
        self.io = IoSpec(
            inputs=tuple(_spec(row) for row in self._session.get_inputs()),
            outputs=tuple(_spec(row) for row in self._session.get_outputs()),
        )

    def run_once(self, inputs: Arrays) -> dict[str, AnyArray]:
        """Run one batch.

        Raises:
            ModelError: The runtime failed.
        """
        names = [spec.name for spec in self.io.outputs]
        try:
            found = self._session.run(names, dict(inputs))
        except _LOAD_ERRORS as error:
            raise ModelError(f"{self._path} does not run: {_first_line(error)}") from error
        return dict(zip(names, found, strict=True))

    def output_step(self) -> float | None:
        """Scale of the DequantizeLinear that gives the first output, if one does."""
        import onnx  # noqa: PLC0415 - only packaging needs it
        from onnx import numpy_helper  # noqa: PLC0415

        graph = onnx.load(self._path).graph
        makers = [row for row in graph.node if self.io.outputs[0].name in row.output]
        if not makers or makers[0].op_type != "DequantizeLinear":
            return None
        scales = [row for row in graph.initializer if row.name == makers[0].input[1]]
        return float(np.max(numpy_helper.to_array(scales[0]))) if scales else None

    def version(self) -> str:
        """Package and version."""
        return f"onnxruntime {onnxruntime.__version__}"


def _spec(row: Any) -> TensorSpec:
    dtype = _DTYPES.get(row.type, row.type.removeprefix("tensor(").removesuffix(")"))
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in row.shape)
    return TensorSpec(name=row.name, dtype=read_dtype(dtype, tensor=row.name), shape=shape)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
