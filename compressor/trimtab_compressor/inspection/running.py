"""Whether the runtime of this host loads and runs a file: tried, not guessed."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.inspection.description import RunsHere
from trimtab_compressor.runtimes.port import Kernels, Runner
from trimtab_compressor.runtimes.table import format_of, open_model
from trimtab_protocol.errors import ModelError
from trimtab_protocol.manifest import ModelFormat, TensorSpec

SEED = 0
PACKAGES = {ModelFormat.ONNX: "onnxruntime", ModelFormat.TFLITE: "ai-edge-litert"}


def try_to_run(path: Path, shapes: dict[str, tuple[int, ...]]) -> RunsHere:
    """Load a file, and run it once on seeded inputs if their shapes are known.

    Args:
        path: The model.
        shapes: Of inputs whose axes are free, by name.
    """
    package = PACKAGES[format_of(path)]
    runtime = f"{package} {version(package)}"
    try:
        runner = open_model(path, Kernels.DEFAULT)
    except ModelError as error:
        return RunsHere(runtime=runtime, loads=False, runs=False, reason=error.message)
    sizes = {spec.name: shapes.get(spec.name, _batch_of_one(spec)) for spec in runner.io.inputs}
    if any(size is None for shape in sizes.values() for size in shape):
        reason = "not run: an input leaves axes free; give --shape"
        return RunsHere(runtime=runtime, loads=True, runs=None, reason=reason)
    try:
        outputs = runner.run_once(seeded_inputs(runner, sizes))  # type: ignore[arg-type]
    except ModelError as error:
        return RunsHere(runtime=runtime, loads=True, runs=False, reason=error.message)
    wrong = [name for name, rows in outputs.items() if not np.isfinite(rows).all()]
    reason = f"output {', '.join(wrong)} is not finite on seeded inputs" if wrong else ""
    return RunsHere(runtime=runtime, loads=True, runs=not wrong, reason=reason)


def seeded_inputs(
    runner: Runner, shapes: dict[str, tuple[int, ...]], seed: int = SEED
) -> dict[str, AnyArray]:
    """Numbers in [0, 1) for floats, the whole range for bytes, zeros for wider integers.

    Wider integers are indices more often than not, and 0 is one in every table.
    """
    random = np.random.default_rng(seed)
    return {spec.name: _seeded(random, spec.dtype, shapes[spec.name]) for spec in runner.io.inputs}


def _seeded(random: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> AnyArray:
    if dtype.startswith("float"):
        return random.random(shape, np.float32).astype(dtype)
    if dtype in {"int8", "uint8"}:
        limits = np.iinfo(dtype)
        return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return np.zeros(shape, dtype)


def _batch_of_one(spec: TensorSpec) -> tuple[int | None, ...]:
    return tuple(1 if size is None and axis == 0 else size for axis, size in enumerate(spec.shape))
