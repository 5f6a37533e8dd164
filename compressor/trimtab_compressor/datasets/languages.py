"""Which language is it: a few words of one of 16 languages in Latin script, from `wordfreq`'s lists.

The PyPI package `wordfreq` lists the words of a language with their frequencies. A sample is a few
words of one language, drawn by frequency. A word's own digest says whether it is for training or
for testing, in every language alike, so a test sample has not one word that was trained on.
Inputs are codes of characters (see ALPHABET) as float32, padded with 0.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab_compressor.arrays import AnyArray, FloatArray
from trimtab_compressor.datasets.msgpack import read_msgpack
from trimtab_compressor.datasets.packages import read_members
from trimtab_compressor.task import Samples
from trimtab_protocol.errors import TrustError

PACKAGE = "wordfreq==3.1.1"
SHA256 = {
    "ca": "13fa468e915d70f3b2991244f71fa5c160ab1d097d3f084546b8a7f15e8a5f03",
    "cs": "213812b32ab2b2cdb626e5e1ced308d0d89e2990ae1eb5cf183c5e1f16d52940",
    "da": "80db682ff7bb30e7c8fd3e5dac2b9fe8c12faa206c45438f1a799a048ab10d8b",
    "de": "2115b5bb4adb671a3352555a480b9c2f5b03493e9f7e4047997361d62310017a",
    "en": "f94a80cba6a3857b260d0666b5432bb7ea9b85315574dee9c306e87f61298247",
    "es": "ff5853040f65bcc9cb3ed3721d1d09d4405389c1741ebbf529612220829ff5af",
    "fi": "7c33d07743908b9ae43347d96f60e4d1d30fa3529f59fdefcbf16441040183d7",
    "fr": "8fbbf619ff2e6ff5b3d99d41e69c105daf5795771ce8ef36529f210d571abe6e",
    "hu": "84130f74f9ea8f097bfb25d3778d03d26449dba255df7e60f42bbef463fdc582",
    "it": "07a4355d735d9cc864ce9fe679d94a13dee4cefa2495b6b013ecdb214b231c66",
    "nl": "ae0d64f10e9d11898b2b9481c0b20698ec40c79b8025edfdd70856bd593ad4b0",
    "pl": "95691a55cc2afe0719c11f187fe55a8956bef0654ec476e945af3c495b4aa285",
    "pt": "fe4e551f6da739583d66cd5ef4fca28a1ccfa2ae5a53a5cbf48aa73dd7c91e0c",
    "ro": "c17fe82952ed209bb45b95c56cb5c7f077ca921a84578c3807d48ddc1dd842e2",
    "sv": "a7c52a3d3576db1b7d4280be47aafccabdc70f9a56c5a40bc94b9139e271adf6",
    "tr": "10980704ee3ac5b52f226579251905412a04ead57092a12182dd0b8be6a765df",
}
"""Of `small_LANGUAGE.msgpack.gz`, the words above one in a million."""
LANGUAGES = tuple(SHA256)

ALPHABET = " abcdefghijklmnopqrstuvwxyzßàáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿăąćčďđęěğıłńňőœřśşšșťţțůűźżž"
PADDING, UNKNOWN, FIRST_CODE = 0, 1, 2
CODES = FIRST_CODE + len(ALPHABET)

LENGTH = 32
"""Characters of a sample."""
WORDS = 4
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Languages:
    """Two parts without a word in common."""

    train: Samples
    test: Samples


@dataclass(frozen=True)
class Lexicon:
    """Words of one language, with how likely each is drawn; the likelihoods add up to 1."""

    words: tuple[str, ...]
    likelihoods: AnyArray


def load_languages(
    train_count: int, test_count: int, *, seed: int = 0, cache_folder: Path | None = None
) -> Languages:
    """Draw samples of all languages, as many of each.

    Args:
        train_count: How many samples in all, at least one per language.
        test_count: The same.
        seed: Of the drawing.
        cache_folder: None for the default.

    Raises:
        TransientError: The lists could not be fetched; look at the network and try again.
        TrustError: What was fetched is not what is expected.
    """
    members = {f"wordfreq/data/small_{name}.msgpack.gz": SHA256[name] for name in LANGUAGES}
    lists = [
        read_words(gzip.decompress(packed))
        for packed in read_members(PACKAGE, members, cache_folder).values()
    ]
    random = np.random.default_rng(seed)
    return Languages(
        train=draw([select(words, for_test=False) for words in lists], train_count, random),
        test=draw([select(words, for_test=True) for words in lists], test_count, random),
    )


def read_words(packed: bytes) -> dict[str, float]:
    """Frequencies by word, of a list in wordfreq's "cB" format.

    The n-th entry after the header holds the words whose frequency is 10^(-n / 100).

    Raises:
        TrustError: It is of another format.
    """
    header, *steps = read_msgpack(packed)
    if not isinstance(header, dict) or header.get("format") != "cB" or header.get("version") != 1:
        raise TrustError(f"a word list begins with {header!r}; 'cB' of version 1 is expected")
    return {word: 10 ** (-step / 100) for step, words in enumerate(steps) for word in words}


def select(frequencies: dict[str, float], *, for_test: bool) -> Lexicon:
    """The words of one side: of two letters and more, in Latin script.

    Likelihoods follow the square root of the frequency; else a hundred words were most of the text.
    """
    words = tuple(
        word
        for word in frequencies
        if len(word) > 1 and _is_latin(word) and is_for_test(word) == for_test
    )
    weights = np.sqrt([frequencies[word] for word in words])
    return Lexicon(words=words, likelihoods=weights / weights.sum())


def is_for_test(word: str) -> bool:
    """The side of a word, whatever its language."""
    return hashlib.sha256(word.encode()).digest()[0] < TEST_SHARE * 256


def draw(lexicons: Sequence[Lexicon], count: int, random: np.random.Generator) -> Samples:
    """Draw samples, the languages in turn."""
    per_language = -(-count // len(lexicons))
    drawn = [
        random.choice(lexicon.words, (per_language, WORDS), p=lexicon.likelihoods)
        for lexicon in lexicons
    ]
    labels = np.arange(count) % len(lexicons)
    texts = (" ".join(drawn[label][row // len(lexicons)]) for row, label in enumerate(labels))
    return Samples(inputs=encode(texts), labels=labels.astype(np.int64))


def encode(texts: Iterable[str]) -> FloatArray:
    """Codes of the characters: (n, LENGTH); longer texts are cut, shorter ones padded."""
    code_of = {letter: code for code, letter in enumerate(ALPHABET, start=FIRST_CODE)}
    code_of["\0"] = PADDING
    return np.array(
        [
            [code_of.get(letter, UNKNOWN) for letter in text.lower()[:LENGTH].ljust(LENGTH, "\0")]
            for text in texts
        ],
        dtype=np.float32,
    )


def _is_latin(word: str) -> bool:
    return word.isalpha() and all(ord(letter) < 0x250 for letter in word)
