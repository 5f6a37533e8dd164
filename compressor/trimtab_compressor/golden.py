"""Golden vectors: a few inputs with the outputs that every device must give.

Rules:
    1. Inputs are real samples if they fit; else they are grown from seeds.
    2. Outputs are those of the exact kernels, so that a host whose integer kernels saturate does
       not teach its faults to the fleet.
    3. The tolerance separates rounding from garbage. Two correct integer kernels differ by one
       step per layer at most, which after a few layers is a step or two of the output: four steps
       are allowed, or 2 % of the output's range where the output is not quantized itself. A float
       file may differ by a thousandth of the range (order of summation).
    4. The answer (argmax) must agree only if it is clear in every vector: the largest output leads
       by more than twice the tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.runtimes.port import Arrays, Runner, run_all
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import Golden, GoldenVector, IoSpec
from trimtab_protocol.tensors import SeededTensor, Tensor, pack_tensor, unpack_tensor

VECTORS = 4
CONSIDERED = 64
INLINE_BYTES = 32 * 1024
"""Inline inputs may take this much of a manifest, as compressed text."""

OUTPUT_STEPS = 4.0
QUANTIZED_RANGE_RATIO = 0.02
FLOAT_RANGE_RATIO = 1e-3
SEED = 20_240


def make_golden(runner: Runner, samples: Arrays, *, is_quantized: bool) -> Golden:
    """Choose vectors, run them, and set the tolerance.

    Args:
        runner: The model with its exact kernels.
        samples: By input name, matched to the model, (n, *sample shape).
        is_quantized: Whether the file computes with integers anywhere.

    Raises:
        ModelError: The model does not run.
        ConfigError: The inputs are too large to travel and cannot be grown (not float32).
    """
    few = {name: rows[:CONSIDERED] for name, rows in samples.items()}
    outputs = run_all(runner, few)
    first = outputs[runner.io.outputs[0].name]
    tolerance = tolerance_of(first, runner.output_step(), is_quantized=is_quantized)
    chosen = choose_rows(first, tolerance)
    packed = [{name: _pack(rows[row : row + 1]) for name, rows in few.items()} for row in chosen]
    if sum(_text_bytes(tensor) for vector in packed for tensor in vector.values()) > INLINE_BYTES:
        packed = [_grow_inputs(runner.io, few, seed) for seed in range(SEED, SEED + len(chosen))]
    vectors = tuple(_vector(runner, inputs) for inputs in packed)
    answers = np.concatenate([_first_output(runner, vector) for vector in vectors])
    return Golden(
        vectors=vectors,
        max_abs_error=max(
            tolerance, tolerance_of(answers, runner.output_step(), is_quantized=is_quantized)
        ),
        argmax_must_agree=bool((margins(answers) > 2 * tolerance).all()),
    )


def tolerance_of(outputs: AnyArray, step: float | None, *, is_quantized: bool) -> float:
    """Largest difference that is still rounding, in the output's unit (rule 3)."""
    value_range = max(float(np.ptp(outputs.astype(np.float64))), 1e-6)
    if step is not None:
        return OUTPUT_STEPS * step
    return value_range * (QUANTIZED_RANGE_RATIO if is_quantized else FLOAT_RANGE_RATIO)


def margins(outputs: AnyArray) -> AnyArray:
    """How far the largest output leads the next, per row; 0 if there is only one."""
    rows = outputs.reshape(len(outputs), -1).astype(np.float64)
    if rows.shape[1] < 2:
        return np.zeros(len(rows))
    ordered = np.sort(rows, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def choose_rows(outputs: AnyArray, tolerance: float) -> list[int]:
    """Clear answers first, each answer once before any comes twice, in the order of the samples."""
    answers = outputs.reshape(len(outputs), -1).argmax(axis=1)
    clear = margins(outputs) > 2 * tolerance
    seen: dict[int, int] = {}
    ranks = []
    for row, answer in enumerate(answers):
        repeat = seen.get(int(answer), 0)
        seen[int(answer)] = repeat + int(clear[row])
        ranks.append((not clear[row], repeat, row))
    return [row for *_, row in sorted(ranks)[:VECTORS]]


def unpack_array(tensor: Tensor) -> AnyArray:
    """A tensor of a manifest as an array."""
    little = np.dtype(tensor.dtype).newbyteorder("<")
    return np.frombuffer(unpack_tensor(tensor), little).astype(tensor.dtype).reshape(tensor.shape)


def _vector(runner: Runner, inputs: dict[str, Tensor]) -> GoldenVector:
    found = runner.run_once({name: unpack_array(tensor) for name, tensor in inputs.items()})
    return GoldenVector(inputs=inputs, outputs={name: _pack(rows) for name, rows in found.items()})


def _first_output(runner: Runner, vector: GoldenVector) -> AnyArray:
    return unpack_array(vector.outputs[runner.io.outputs[0].name])


def _pack(rows: AnyArray) -> Tensor:
    little = rows.astype(rows.dtype.newbyteorder("<"))
    return pack_tensor(rows.dtype.name, rows.shape, np.ascontiguousarray(little).tobytes())  # type: ignore[arg-type]


def _text_bytes(tensor: Tensor) -> int:
    return 0 if isinstance(tensor, SeededTensor) else len(tensor.zlib_base64)


def _grow_inputs(io: IoSpec, samples: Arrays, seed: int) -> dict[str, Tensor]:
    return {spec.name: _grow_one(samples[spec.name], spec.name, seed) for spec in io.inputs}


def _grow_one(rows: AnyArray, name: str, seed: int) -> Tensor:
    if rows.dtype != np.float32:
        raise ConfigError(
            f"golden inputs for '{name}' are too large for a manifest, and {rows.dtype} cannot be "
            "grown from a seed; give the model a float32 input"
        )
    shape: Sequence[int] = (1, *rows.shape[1:])
    return SeededTensor(
        shape=tuple(shape), seed=seed, low=float(rows.min()), high=float(rows.max())
    )
