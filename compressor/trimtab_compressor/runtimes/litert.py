"""LiteRT on the host's CPU.

EXACT is the reference kernels: the arithmetic that the TFLite specification defines, in plain C++
without SIMD. They are ten to twenty times slower than DEFAULT (XNNPACK), which is why only the
accuracy figure uses them.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.quiet import quiet
from trimtab_compressor.runtimes.port import Arrays, Kernels, read_dtype
from trimtab_compressor.threads import thread_count
from trimtab_protocol.errors import ErrorCode, ModelError
from trimtab_protocol.manifest import IoSpec, TensorSpec

_RESOLVERS = {Kernels.EXACT: OpResolverType.BUILTIN_REF, Kernels.DEFAULT: OpResolverType.AUTO}


class LitertRunner:
    """One interpreter on one thread (or TRIMTAB_THREADS).

    Args:
        path: The model.
        kernels: Which arithmetic.

    Raises:
        ModelError: `model.unreadable`: not a model that this runtime can run.
    """

    def __init__(self, path: Path, kernels: Kernels) -> None:
        try:
            with quiet():
                self._interpreter = Interpreter(
                    str(path),
                    num_threads=thread_count(),
                    experimental_op_resolver_type=_RESOLVERS[kernels],
                )
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ModelError(
                f"{path} cannot be read as a TFLite model: {first}", code=ErrorCode.MODEL_UNREADABLE
            ) from error
        self._path = path
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self.io = IoSpec(
            inputs=tuple(_spec(row) for row in self._inputs),
            outputs=tuple(_spec(row) for row in self._outputs),
        )

    def run_once(self, inputs: Arrays) -> dict[str, AnyArray]:
        """Run one batch of the size that the file fixes.

        Raises:
            ModelError: The runtime failed.
        """
        try:
            for row in self._inputs:
                self._interpreter.set_tensor(row["index"], inputs[row["name"]])
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"{self._path} does not run: {error}") from error
        return {row["name"]: self._interpreter.get_tensor(row["index"]) for row in self._outputs}

    def output_step(self) -> float | None:
        """Scale of the first output, or of the tensor that is dequantized into it."""
        index = self._outputs[0]["index"]
        for operation in self._interpreter._get_ops_details():
            if operation["op_name"] == "DEQUANTIZE" and index in operation["outputs"]:
                index = operation["inputs"][0]
        details = {row["index"]: row for row in self._interpreter.get_tensor_details()}
        scales = details[index]["quantization_parameters"]["scales"]
        return float(np.max(scales)) if len(scales) else None

    def version(self) -> str:
        """Package and version."""
        return f"ai-edge-litert {version('ai-edge-litert')}"


def _spec(row: dict[str, Any]) -> TensorSpec:
    """A free first axis is given as it stands: an interpreter runs the batch that it was made for."""
    name = row["name"]
    signature = row.get("shape_signature", row["shape"])
    shape = tuple(int(size) if size > 0 else None for size in (*row["shape"][:1], *signature[1:]))
    dtype = re.sub("_$", "", np.dtype(row["dtype"]).name)
    return TensorSpec(name=name, dtype=read_dtype(dtype, tensor=name), shape=shape)
