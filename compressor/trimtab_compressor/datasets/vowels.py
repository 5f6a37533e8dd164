"""Who speaks: Japanese vowels of nine speakers, from the PyPI package `aeon`.

M. Kudo, J. Toyama, M. Shimbo, "Multidimensional curve classification using passing-through
regions", Pattern Recognition Letters 20 (1999); UCI Machine Learning Repository. 640 utterances of
7 to 29 frames of 12 cepstral coefficients (linear prediction), 270 of them for training.
Each coefficient is normalised by its mean and deviation in the training part, then padded with 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab_compressor.arrays import FloatArray
from trimtab_compressor.datasets.packages import read_members
from trimtab_compressor.task import Samples

PACKAGE = "aeon==1.6.0"
FOLDER = "aeon/datasets/data/JapaneseVowels"
TRAIN, TEST = f"{FOLDER}/JapaneseVowels_TRAIN.ts", f"{FOLDER}/JapaneseVowels_TEST.ts"
SHA256 = {
    TRAIN: "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd",
    TEST: "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462",
}
COEFFICIENTS, FRAMES, SPEAKERS = 12, 29, 9


@dataclass(frozen=True)
class Vowels:
    """The two parts as published: 30 utterances of each speaker to train on, 370 to test on."""

    train: Samples
    test: Samples


@dataclass(frozen=True)
class Utterance:
    """One utterance.

    Args:
        frames: (COEFFICIENTS, frames), frames <= FRAMES.
        speaker: 0 to 8.
    """

    frames: FloatArray
    speaker: int


def load_vowels(cache_folder: Path | None = None) -> Vowels:
    """Give the whole data set, fetched if it is not in the cache.

    Raises:
        TransientError: It could not be fetched; look at the network and try again.
        TrustError: What was fetched is not the file that is expected.
    """
    files = read_members(PACKAGE, SHA256, cache_folder)
    train, test = (read_utterances(files[name].decode()) for name in (TRAIN, TEST))
    spoken = np.concatenate([row.frames for row in train], axis=1)
    mean, deviation = spoken.mean(axis=1, keepdims=True), spoken.std(axis=1, keepdims=True)
    return Vowels(
        train=_samples(train, mean, deviation),
        test=_samples(test, mean, deviation),
    )


def read_utterances(text: str) -> list[Utterance]:
    """Read the ".ts" layout: a line per utterance, coefficients parted by ":", the speaker last."""
    lines = [line for line in text.splitlines() if line and line[0] not in "#@"]
    return [_read_utterance(line) for line in lines]


def _read_utterance(line: str) -> Utterance:
    *coefficients, speaker = line.split(":")
    frames = [[float(value) for value in row.split(",")] for row in coefficients]
    return Utterance(frames=np.array(frames, dtype=np.float32), speaker=int(speaker) - 1)


def _samples(rows: list[Utterance], mean: FloatArray, deviation: FloatArray) -> Samples:
    inputs = np.zeros((len(rows), COEFFICIENTS, FRAMES), dtype=np.float32)
    for inputs_row, row in zip(inputs, rows, strict=True):
        inputs_row[:, : row.frames.shape[1]] = (row.frames - mean) / deviation
    return Samples(inputs=inputs, labels=np.array([row.speaker for row in rows], dtype=np.int64))
