"""The data sets that packages ship: what is read of them, and how it is split."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from trimtab_compressor.cache import Cache
from trimtab_compressor.datasets import animals


def draw_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return (
        random.integers(0, 256, (count, 28, 28)).astype(np.uint8),
        random.integers(0, 10, count),
    )


def rows_of(inputs: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in inputs}


def test_no_animal_is_on_both_sides_not_even_as_a_copy() -> None:
    images, labels = draw_images(500)
    images[100:200], labels[100:200] = images[:100], labels[:100]
    found = animals.split_images(images, labels)
    train, test = rows_of(found.train.inputs), rows_of(found.test.inputs)
    assert not train & test
    assert len(train) == len(found.train.labels)
    assert len(train) + len(test) == 400
    assert 0.1 < len(test) / 400 < 0.3


def test_an_animal_keeps_its_side_whatever_else_is_there() -> None:
    images, labels = draw_images(200)
    whole = rows_of(animals.split_images(images, labels).test.inputs)
    half = rows_of(animals.split_images(images[::-2], labels[::-2]).test.inputs)
    assert half < whole


def test_animals_are_read_from_the_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = draw_images(100)
    packed = {
        animals.IMAGES: gzip.compress(pickle.dumps(images, protocol=4)),
        animals.LABELS: gzip.compress(pickle.dumps(labels, protocol=4)),
    }
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in packed.items()}
    monkeypatch.setattr(animals, "SHA256", digests)
    for name, digest in digests.items():
        path = Cache(tmp_path).path(digest, ".gz")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(packed[name])
    found = animals.load_animals(tmp_path)
    brightest = images.max() / 256
    assert max(found.train.inputs.max(), found.test.inputs.max()) == np.float32(brightest)
    pairs = dict(zip((row.tobytes() for row in images), labels.tolist(), strict=True))
    for part in (found.train, found.test):
        raw = (part.inputs * 256).astype(np.uint8)
        assert [pairs[row.tobytes()] for row in raw] == part.labels.tolist()
