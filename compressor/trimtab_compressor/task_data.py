"""Training and test data in whatever form a person has it, as arrays.

Understood are Samples, a pair of arrays or tensors, and anything that yields (input, label): a torch
Dataset or DataLoader, a list, a generator. It is read once, in the order in which it yields, with the
random generators seeded: random augmentation is frozen, and the same data come out at every run.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab_compressor.arrays import AnyArray, FloatArray, IntArray
from trimtab_protocol.errors import ConfigError, TrimtabError


@dataclass(frozen=True)
class Samples:
    """Inputs with their labels.

    Args:
        inputs: float32, (n, *input_shape), normalised as the network expects them.
        labels: Integers in [0, classes), (n,).
    """

    inputs: FloatArray
    labels: IntArray


def collect_samples(source: object, where: str) -> Samples:
    """Read data into arrays.

    Args:
        source: See the module; Samples are given back as they are.
        where: What it is, such as "task digits: train".

    Raises:
        ConfigError: It cannot be read, yields something else than pairs, or shapes that differ.
    """
    if isinstance(source, Samples):
        return source
    if isinstance(source, tuple) and len(source) == 2 and all(map(_is_array, source)):
        inputs, labels = map(_to_array, source)
        return Samples(_check_floats(inputs, where), labels)
    if not isinstance(source, Iterable) and not hasattr(source, "__getitem__"):
        raise ConfigError(
            f"{where} is a {type(source).__name__}; give Samples(inputs, labels), a torch Dataset or a "
            "DataLoader of (input, label)"
        )
    pairs: list[tuple[AnyArray, AnyArray]] = []
    for number, item in _items(source, where):
        pairs.append(_read_pair(item, where, number, source))
        shape, first = pairs[-1][0].shape[1:], pairs[0][0].shape[1:]
        if shape != first:
            raise ConfigError(
                f"{where}: inputs of item {number} have shape {list(shape)}, those of item 0 "
                f"{list(first)}; bring them to one shape"
            )
    if not pairs:
        raise ConfigError(f"{where} is empty; give at least one sample")
    inputs = np.concatenate([row for row, _ in pairs])
    return Samples(_check_floats(inputs, where), np.concatenate([row for _, row in pairs]))


def _items(source: Any, where: str) -> Iterator[tuple[int, object]]:
    """What a source yields, with its number."""
    seed_generators(0)
    found: Iterator[object] = iter(())
    for number in itertools.count():
        try:
            if number == 0:
                found = iter(source) if hasattr(source, "__iter__") else _by_index(source)
            item = next(found)
        except StopIteration:
            return
        except TrimtabError:
            raise
        except Exception as error:  # the person's own code may raise anything; it is our input
            raise ConfigError(
                f"{where}: reading item {number} raised {type(error).__name__}: {error}; try it alone"
            ) from error
        yield number, item


def _by_index(source: Any) -> Iterator[object]:
    """A torch Dataset is read by index and need not end by raising."""
    for number in range(len(source)):
        yield source[number]


def _read_pair(item: object, where: str, number: int, source: object) -> tuple[AnyArray, AnyArray]:
    """One sample, or one batch: (b, *input shape), (b,)."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        found = f"{len(item)} things" if isinstance(item, tuple | list) else type(item).__name__
        raise ConfigError(f"{where}: item {number} is {found}; it must be a pair (input, label)")
    inputs, labels = _to_array(item[0]), _to_array(item[1])
    is_batched = getattr(source, "batch_size", None) is not None
    if not is_batched and (
        labels.ndim == 0 or (labels.size == 1 and hasattr(source, "__getitem__"))
    ):
        inputs, labels = inputs[None], labels.reshape(1)
    if labels.ndim != 1 or inputs.ndim < 1 or len(inputs) != len(labels):
        raise ConfigError(
            f"{where}: item {number} has an input of shape {list(inputs.shape)} and a label of shape "
            f"{list(labels.shape)}; give one integer per input"
        )
    return inputs, labels


def _check_floats(inputs: AnyArray, where: str) -> FloatArray:
    if inputs.dtype.kind != "f":
        raise ConfigError(
            f"{where}: inputs are {inputs.dtype}; give floats, normalised as the network expects them"
        )
    return inputs.astype(np.float32, copy=False)


def _is_array(value: object) -> bool:
    return hasattr(value, "shape") and hasattr(value, "__array__")


def _to_array(value: Any) -> AnyArray:
    """Also of a tensor that remembers its gradient."""
    return np.asarray(value.detach() if hasattr(value, "detach") else value)


def seed_generators(seed: int) -> None:
    """Seed all generators that a person's code may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
