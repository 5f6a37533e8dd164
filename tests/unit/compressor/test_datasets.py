"""The data sets that packages ship: what is read of them, and how it is split."""

from __future__ import annotations

import gzip
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from trimtab_compressor.cache import Cache
from trimtab_compressor.datasets import animals, languages, vowels
from trimtab_protocol.errors import TrustError


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


def pack_words(*steps: list[str]) -> bytes:
    """A list of words in the "cB" layout: a header, then the words of each step."""

    def text(word: str) -> bytes:
        raw = word.encode()
        return (bytes([0xA0 | len(raw)]) if len(raw) < 32 else bytes([0xD9, len(raw)])) + raw

    header = b"\x82" + text("format") + text("cB") + text("version") + b"\x01"
    rows = b"".join(bytes([0x90 | len(words)]) + b"".join(map(text, words)) for words in steps)
    return b"\xdc" + (len(steps) + 1).to_bytes(2, "big") + header + rows


def test_a_word_list_gives_frequencies() -> None:
    long_word = "donaudampfschifffahrtsgesellschaft"
    found = languages.read_words(pack_words([], ["the"], ["of", "and"], [long_word]))
    assert found == pytest.approx(
        {"the": 10**-0.01, "of": 10**-0.02, "and": 10**-0.02, long_word: 10**-0.03}
    )


def test_a_damaged_word_list_is_refused() -> None:
    whole = pack_words(["the"])
    for bad in (whole[:-2], b"", b"\x01", b"\xc1", b"\x91\xa3\xff\xff\xff", b"\x91\x05"):
        with pytest.raises(TrustError):
            languages.read_words(bad)


def test_no_word_is_for_training_in_one_language_and_for_testing_in_another() -> None:
    frequencies = {
        f"w{chr(97 + one)}{chr(97 + two)}": 0.01 for one in range(26) for two in range(26)
    }
    train = languages.select(frequencies, for_test=False)
    test = languages.select(dict.fromkeys(frequencies, 1e-06), for_test=True)
    assert not set(train.words) & set(test.words)
    assert len(train.words) + len(test.words) == len(frequencies)
    assert train.likelihoods.sum() == pytest.approx(1)


def test_only_words_in_latin_letters_are_drawn() -> None:
    frequencies = dict.fromkeys(["été", "во", "a", "00", "l'eau", "żółw"], 0.1)
    words = {
        word
        for side in (False, True)
        for word in languages.select(frequencies, for_test=side).words
    }
    assert words == {"été", "żółw"}


def test_a_text_becomes_codes_of_one_length() -> None:
    found = languages.encode(["Ab 漢", "z" * 99])
    first = languages.FIRST_CODE
    assert found.shape == (2, languages.LENGTH)
    assert found.dtype == np.float32
    assert found[0, :5].tolist() == [first + 1, first + 2, first, languages.UNKNOWN, 0]
    assert found.max() == first + 26 < languages.CODES


def test_samples_are_words_of_their_language() -> None:
    lexicons = [
        languages.Lexicon(words=(word,), likelihoods=np.ones(1)) for word in ("aa", "bb", "cc")
    ]
    found = languages.draw(lexicons, 7, np.random.default_rng(0))
    assert found.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert [row[0] for row in found.inputs.tolist()] == [
        languages.FIRST_CODE + 1 + label for label in found.labels
    ]


TS = """#a comment
@classLabel true 1 2
@data
1.0,3.0:{rest}:1
5.0,7.0,9.0:{long}:2
""".format(rest=":".join(["0.5,0.25"] * 11), long=":".join(["1,2,3"] * 11))


def test_utterances_are_read_with_their_speakers() -> None:
    found = vowels.read_utterances(TS)
    assert [row.speaker for row in found] == [0, 1]
    assert [row.frames.shape for row in found] == [(12, 2), (12, 3)]
    assert found[0].frames[:2].tolist() == [[1.0, 3.0], [0.5, 0.25]]


def test_speech_is_normalised_by_what_is_trained_on_and_padded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shifted = TS.replace("1.0,3.0", "101.0,103.0")
    contents = {vowels.TRAIN: TS.encode(), vowels.TEST: shifted.encode()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(vowels, "SHA256", digests)
    for name, digest in digests.items():
        path = Cache(tmp_path).path(digest, ".ts")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(contents[name])
    found = vowels.load_vowels(tmp_path)
    spoken = np.concatenate([found.train.inputs[0, 0, :2], found.train.inputs[1, 0, :3]])
    assert spoken.mean() == pytest.approx(0, abs=1e-6)
    assert spoken.std() == pytest.approx(1, abs=1e-6)
    assert not found.train.inputs[0, :, 2:].any()
    assert found.test.inputs[0, 0, 0] > 10
    assert found.test.inputs[1].tolist() == found.train.inputs[1].tolist()
