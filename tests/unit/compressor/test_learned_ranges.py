"""Which tensor of a file a learned range belongs to."""

from __future__ import annotations

import numpy as np

from trimtab_compressor.learned_ranges import LearnedRange, match_ranges, take_fingerprint

DRAWN = np.random.default_rng(0).normal(size=(8, 4, 6, 6)).astype(np.float32)


def a_range(values: np.ndarray, name: str = "conv") -> LearnedRange:
    return LearnedRange(name, -1.0, 2.0, take_fingerprint(values))


def test_a_tensor_is_recognised_in_another_layout() -> None:
    turned = {"renamed": take_fingerprint(DRAWN.transpose(0, 2, 3, 1))}
    flat = {"flat": take_fingerprint(DRAWN.reshape(8, -1) * (1 + 1e-6))}
    assert match_ranges(turned, [a_range(DRAWN)])["renamed"].name == "conv"
    assert match_ranges(flat, [a_range(DRAWN)])["flat"].name == "conv"


def test_of_many_the_nearest_is_taken() -> None:
    ranges = [a_range(DRAWN * factor, f"at {factor}") for factor in (0.9999, 1.0, 1.0001)]
    assert match_ranges({"x": take_fingerprint(DRAWN)}, ranges)["x"].name == "at 1.0"


def test_a_tensor_that_was_changed_is_not_recognised() -> None:
    ranges = [a_range(DRAWN)]
    for changed in (DRAWN * 1.01, DRAWN + 0.01, np.abs(DRAWN), DRAWN[:, :2]):
        assert match_ranges({"x": take_fingerprint(changed)}, ranges) == {}


def test_values_of_the_same_extremes_are_told_apart() -> None:
    clipped = np.clip(DRAWN, 0, 1)
    other = np.clip(DRAWN * 3, 0, 1)
    assert match_ranges({"x": take_fingerprint(other)}, [a_range(clipped)]) == {}


def test_a_dead_tensor_is_a_dead_tensor_of_its_size() -> None:
    ranges = [a_range(np.zeros((8, 5), np.float32))]
    assert "x" in match_ranges({"x": take_fingerprint(np.zeros((8, 5)))}, ranges)
    assert match_ranges({"x": take_fingerprint(np.zeros((8, 6)))}, ranges) == {}


def test_without_ranges_nothing_is_recognised() -> None:
    assert match_ranges({"x": take_fingerprint(DRAWN)}, []) == {}
