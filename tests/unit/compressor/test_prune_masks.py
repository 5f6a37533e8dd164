"""Which weights go."""

from __future__ import annotations

import pytest
import torch

from trimtab_compressor.passes.prune_masks import (
    Tightening,
    apply_masks,
    cubic_ratio,
    pattern_masks,
    smallest_masks,
)


def test_the_smallest_of_each_layer_go_or_the_smallest_of_all() -> None:
    weights = {"a": torch.tensor([[1.0, -4.0], [3.0, -2.0]]), "b": torch.tensor([[10.0, -20.0]])}
    by_layer = smallest_masks(weights, 0.5, is_global=False)
    assert by_layer["a"].tolist() == [[0, 1], [1, 0]]
    assert by_layer["b"].tolist() == [[0, 1]]
    of_all = smallest_masks(weights, 0.5, is_global=True)
    assert of_all["a"].tolist() == [[0, 1], [0, 0]]
    assert of_all["b"].tolist() == [[1, 1]]


def test_equal_weights_do_not_make_more_go_than_asked_for() -> None:
    masks = smallest_masks({"a": torch.ones(3, 4)}, 0.25, is_global=False)
    assert int((masks["a"] == 0).sum()) == 3


def test_a_higher_ratio_keeps_the_zeros_of_a_lower() -> None:
    weights = {"a": torch.randn(20, 20)}
    lower = smallest_masks(weights, 0.3, is_global=False)
    apply_masks(weights, lower)
    higher = smallest_masks(weights, 0.6, is_global=False)
    assert bool((higher["a"] <= lower["a"]).all())


def test_a_pattern_keeps_the_largest_of_every_four_along_the_inputs() -> None:
    dense = torch.tensor([[1.0, -5.0, 2.0, 3.0, 0.1, 0.2, -0.4, 0.3]])
    assert pattern_masks({"a": dense}, 2, 4)["a"].tolist() == [[0, 1, 0, 1, 0, 0, 1, 1]]
    conv = torch.randn(6, 8, 3, 3)
    mask = pattern_masks({"a": conv}, 1, 4)["a"]
    assert mask.shape == conv.shape
    groups = mask.reshape(6, 2, 4, 3, 3).sum(dim=2)
    assert bool((groups == 1).all())
    kept = (mask * conv.abs()).reshape(6, 2, 4, 3, 3).amax(dim=2)
    assert torch.equal(kept, conv.abs().reshape(6, 2, 4, 3, 3).amax(dim=2))


def test_the_cubic_schedule_starts_and_ends_where_it_should_and_is_fast_at_first() -> None:
    assert cubic_ratio(0.2, 0.8, 0.0) == pytest.approx(0.2)
    assert cubic_ratio(0.2, 0.8, 1.0) == pytest.approx(0.8)
    assert cubic_ratio(0.2, 0.8, 3.0) == pytest.approx(0.8)
    assert cubic_ratio(0.0, 0.8, 0.5) == pytest.approx(0.7)  # 0.8 · (1 - 0.5³)


@pytest.mark.parametrize("total", [1, 7, 40, 1000])
def test_a_tightening_ends_at_its_ratio_before_training_does(total: int) -> None:
    weights = {"a": torch.randn(50, 20)}
    tightening = Tightening(weights, 0.0, 0.9, is_global=False)
    shares = []
    for done in range(1, total + 1):
        gone = weights["a"] == 0
        weights["a"] += 0.3 * torch.randn(50, 20)  # an optimizer moves what was zero, too
        tightening(done, total)
        assert bool((weights["a"] == 0)[gone].all()), "what went does not come back"
        shares.append(float((weights["a"] == 0).double().mean()))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(0.9)
    if total >= 40:
        assert shares[0] < 0.2
        assert shares[int(0.75 * total)] == pytest.approx(0.9)
