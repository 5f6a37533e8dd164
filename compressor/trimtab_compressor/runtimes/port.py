"""The port of a runtime on the host."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Protocol

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_protocol.errors import ConfigError, ModelError
from trimtab_protocol.manifest import IoSpec, TensorSpec
from trimtab_protocol.tensors import DTYPE_BYTES, DType

Arrays = Mapping[str, AnyArray]

BATCH = 250
"""Samples per call where the model's batch is free."""


class Kernels(str, Enum):
    """Which arithmetic to run."""

    EXACT = "exact"  # as written in the file
    DEFAULT = "default"  # what the runtime chooses for this CPU


class Runner(Protocol):
    """A loaded model."""

    io: IoSpec

    def run_once(self, inputs: Arrays) -> dict[str, AnyArray]:
        """Run one batch; raises ModelError if the runtime cannot."""

    def output_step(self) -> float | None:
        """Quantization step of the first output, or None if it is not quantized."""

    def version(self) -> str:
        """Package and version of the runtime."""


def run_all(runner: Runner, samples: Arrays) -> dict[str, AnyArray]:
    """Run any number of samples, in batches if the model allows them.

    Args:
        runner: The model.
        samples: By input name, (n, *sample shape).

    Raises:
        ModelError: The runtime failed.
    """
    count = len(next(iter(samples.values())))
    size = BATCH if is_batch_free(runner.io) else 1
    parts = [
        runner.run_once({name: rows[start : start + size] for name, rows in samples.items()})
        for start in range(0, count, size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def is_batch_free(io: IoSpec) -> bool:
    """Whether every input takes any number of samples."""
    return all(spec.shape and spec.shape[0] is None for spec in io.inputs)


def fit_samples(io: IoSpec, samples: Arrays | AnyArray, *, what: str) -> dict[str, AnyArray]:
    """Match samples to a model's inputs.

    Args:
        io: Of the model.
        samples: By input name; or one array for a model of one input. (n, *sample shape)
        what: Where they come from, for the message.

    Raises:
        ConfigError: Names, types or shapes do not match; the message says both.
    """
    named = samples if isinstance(samples, Mapping) else {io.inputs[0].name: samples}
    expected = [spec.name for spec in io.inputs]
    if sorted(named) != sorted(expected):
        raise ConfigError(
            f"{what}: arrays are named {sorted(named)}, the model's inputs {sorted(expected)}; "
            "save one array per input under its name"
        )
    if len({len(rows) for rows in named.values()}) != 1 or not len(next(iter(named.values()))):
        raise ConfigError(f"{what}: every input needs the same number of samples, at least one")
    return {spec.name: _fit_one(spec, np.asarray(named[spec.name]), what) for spec in io.inputs}


def _fit_one(spec: TensorSpec, rows: AnyArray, what: str) -> AnyArray:
    wanted = spec.shape[1:]
    fits = len(wanted) == rows.ndim - 1 and all(
        size in (None, found) for size, found in zip(wanted, rows.shape[1:], strict=True)
    )
    if not fits:
        raise ConfigError(
            f"{what}: samples for '{spec.name}' have shape {list(rows.shape[1:])}, the model takes "
            f"{list(wanted)}; reshape them (the first axis counts the samples)"
        )
    if rows.dtype.kind == "f" and spec.dtype.startswith("float"):
        rows = rows.astype(spec.dtype)
    if rows.dtype != np.dtype(spec.dtype):
        raise ConfigError(
            f"{what}: samples for '{spec.name}' are {rows.dtype}, the model takes {spec.dtype}; "
            "convert them as your application does"
        )
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        raise ConfigError(f"{what}: samples for '{spec.name}' hold NaN or infinite values")
    return rows


def read_dtype(name: str, *, tensor: str) -> DType:
    """A dtype that a manifest can carry.

    Raises:
        ModelError: It cannot.
    """
    if name not in DTYPE_BYTES:
        raise ModelError(f"tensor '{tensor}' is {name}; only {', '.join(DTYPE_BYTES)} can be used")
    return name  # type: ignore[return-value]
