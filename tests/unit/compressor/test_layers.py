"""Grids, windows, pairs and learned rounding: pure arrays, no file."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from trimtab_compressor.layers.grid import WeightGrid
from trimtab_compressor.layers.pairs import Passage, PassageKind, find_pairs
from trimtab_compressor.layers.port import Layer, LayerKind, Window
from trimtab_compressor.layers.rounding import Learning, learn_rounding
from trimtab_compressor.layers.windows import mean_window, multiply, pick_windows

RANDOM = np.random.default_rng(7)


def a_layer(
    weight: NDArray[np.float32], *, groups: int = 1, window: Window | None = None, **changes: object
) -> Layer:
    kind = LayerKind.DENSE if window is None else LayerKind.CONV
    given: dict[str, object] = {
        "name": "layer",
        "kind": kind,
        "weight": weight,
        "bias": None,
        "groups": groups,
        "window": window,
        "input": "in",
        "output": "out",
        "rank": weight.ndim,
        "channel_axis": 1,
    }
    return Layer(**{**given, **changes})  # type: ignore[arg-type]


def draw(*shape: int) -> NDArray[np.float32]:
    return RANDOM.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("grid", "end"),
    [
        (WeightGrid(), 127),
        (WeightGrid(is_range_reduced=True), 64),
        (WeightGrid(bits=4), 7),
        (WeightGrid(bits=2), 1),
    ],
    ids=str,
)
def test_the_largest_weight_of_each_channel_is_the_end_of_the_grid(
    grid: WeightGrid, end: int
) -> None:
    weight = draw(5, 3, 2, 2) * np.array([1, 10, 0.1, 0, 3], np.float32).reshape(5, 1, 1, 1)
    assert grid.end == end
    rounded = grid.nearest(weight)
    integers = rounded / grid.steps(weight)
    assert np.abs(integers - np.rint(integers)).max() < 1e-4
    largest = np.abs(integers).reshape(5, -1).max(axis=1)
    assert np.rint(largest).tolist() == [end, end, end, 0, end]
    assert np.abs(rounded - weight).max() <= grid.steps(weight).max() / 2 * (1 + 1e-6)
    np.testing.assert_allclose(grid.nearest(rounded), rounded, rtol=1e-6)


def test_per_tensor_all_channels_share_the_step_of_the_largest_weight() -> None:
    weight = np.array([[1.0, -2.0], [0.25, 0.125]], np.float32)
    steps = WeightGrid(is_per_channel=False).steps(weight)
    assert steps.tolist() == [[2 / 127], [2 / 127]]


WINDOWS = {
    "plain": (4, 1, (3, 3), Window((1, 1), (1, 1), ((0, 0), (0, 0)))),
    "padded": (4, 1, (3, 3), Window((1, 1), (1, 1), ((1, 1), (2, 0)))),
    "strided": (4, 1, (3, 2), Window((2, 3), (1, 1), ((1, 1), (0, 1)))),
    "dilated": (4, 1, (3, 3), Window((1, 2), (2, 1), ((2, 2), (0, 0)))),
    "grouped": (4, 2, (3, 3), Window((1, 1), (1, 1), ((1, 1), (1, 1)))),
    "depthwise": (4, 4, (3, 3), Window((2, 2), (1, 1), ((1, 1), (1, 1)))),
    "one axis": (4, 1, (5,), Window((2,), (1,), ((2, 2),))),
}


def convolve(layer: Layer, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, c, *space) by torch, with the layer's padding."""
    assert layer.window is not None
    assert layer.window.padding is not None
    pads = [size for pair in reversed(layer.window.padding) for size in pair]
    padded = torch.nn.functional.pad(torch.from_numpy(rows), pads)
    function = getattr(torch.nn.functional, f"conv{rows.ndim - 2}d")
    found = function(
        padded,
        torch.from_numpy(layer.weight),
        stride=layer.window.strides,
        dilation=layer.window.dilations,
        groups=layer.groups,
    )
    return np.asarray(found.numpy())


@pytest.mark.parametrize("case", WINDOWS)
@pytest.mark.parametrize("channel_axis", [1, -1])
def test_weights_times_windows_are_what_a_convolution_gives(case: str, channel_axis: int) -> None:
    channels, groups, kernel, window = WINDOWS[case]
    weight = draw(8, channels // groups, *kernel)
    axis = channel_axis % weight.ndim
    layer = a_layer(weight, groups=groups, window=window, channel_axis=axis)
    rows = draw(3, channels, *(9, 8)[: len(kernel)])
    expected = convolve(layer, rows)
    activation = np.moveaxis(rows, 1, axis)
    places = int(np.prod(expected.shape[2:]))
    every = multiply(layer, weight, pick_windows(layer, activation, places, 0))
    wanted = np.moveaxis(expected, 1, -1).reshape(-1, 8)
    np.testing.assert_allclose(every, wanted, atol=1e-5)
    mean = mean_window(layer, activation)[None].astype(np.float32)
    np.testing.assert_allclose(multiply(layer, weight, mean)[0], wanted.mean(axis=0), atol=1e-5)


def test_same_padding_puts_the_odd_zero_behind() -> None:
    weight = draw(2, 1, 3)
    same = a_layer(weight, window=Window((2,), (1,), None))
    explicit = a_layer(weight, window=Window((2,), (1,), ((0, 1),)))
    rows = draw(2, 1, 8)
    np.testing.assert_array_equal(mean_window(same, rows), mean_window(explicit, rows))
    assert not np.allclose(mean_window(same, rows), mean_window(same, rows[:, :, ::-1]))


def test_the_same_places_are_picked_whatever_the_batches() -> None:
    layer = a_layer(draw(2, 3, 3, 3), window=Window((1, 1), (1, 1), ((1, 1), (1, 1))))
    rows = draw(5, 3, 6, 6)
    whole = pick_windows(layer, rows, 4, 0)
    parts = [pick_windows(layer, rows[:2], 4, 0), pick_windows(layer, rows[2:], 4, 2)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert len(np.unique(whole.reshape(20, -1), axis=0)) > 10
    assert len(pick_windows(layer, rows, 1000, 0)) == 5 * 36, "no more places than there are"


def layers_around(first_axis: int, inputs: int) -> list[Layer]:
    window = Window((1, 1), (1, 1), ((0, 0), (0, 0)))
    return [
        a_layer(
            draw(3, 2, 1, 1),
            window=window,
            name="a",
            input="x",
            output="a",
            channel_axis=first_axis,
        ),
        a_layer(draw(4, inputs), name="b", input="f", output="y", rank=2),
    ]


@pytest.mark.parametrize(
    ("axis", "shape", "channels"),
    [
        (1, (3, 2, 2), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]),
        (3, (2, 2, 3), [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]),
    ],
    ids=["nchw", "nhwc"],
)
def test_each_flattened_feature_knows_its_channel(
    axis: int, shape: tuple[int, ...], channels: list[int]
) -> None:
    passages = {"a": Passage(PassageKind.FLATTEN, "f", shape=shape)}
    (pair,) = find_pairs(layers_around(axis, 12), passages, Counter(["x", "a", "f"]))
    assert pair.channel_of_input.tolist() == channels


def test_channels_are_followed_through_a_transposition_before_flattening() -> None:
    passages = {
        "a": Passage(PassageKind.TRANSPOSE, "t", axes=(0, 3, 1, 2)),
        "t": Passage(PassageKind.FLATTEN, "f", shape=(3, 2, 2)),
    }
    (pair,) = find_pairs(layers_around(3, 12), passages, Counter(["x", "a", "t", "f"]))
    assert pair.channel_of_input.tolist() == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize(
    ("passages", "reads", "inputs"),
    [
        ({"a": Passage(PassageKind.KEEP, "f")}, ["x", "a", "f"], 3),  # dense reads the last axis
        ({"a": Passage(PassageKind.REMOVE, "f", axes=(1,))}, ["x", "a", "f"], 3),
        ({"a": Passage(PassageKind.REMOVE, "f", axes=(2, 3))}, ["x", "a", "a", "f"], 3),
        ({"a": Passage(PassageKind.REMOVE, "f", axes=(2, 3))}, ["x", "a", "f", "f"], 3),
        ({"a": Passage(PassageKind.REMOVE, "f", axes=(2, 3))}, ["x", "a", "f"], 6),
        ({}, ["x", "a", "f"], 3),
    ],
    ids=["axis", "mean of channels", "read twice", "read twice later", "other size", "unknown"],
)
def test_what_does_not_fit_is_no_pair(
    passages: dict[str, Passage], reads: list[str], inputs: int
) -> None:
    assert find_pairs(layers_around(1, inputs), passages, Counter(reads)) == ()
    good = {"a": Passage(PassageKind.REMOVE, "f", axes=(2, 3))}
    assert len(find_pairs(layers_around(1, 3), good, Counter(["x", "a", "f"]))) == 1


def correlated_inputs(rows: int, groups: int, taps: int) -> NDArray[np.float32]:
    """What neighbours in an image are: nearly the same number."""
    common = RANDOM.normal(1, 1, (rows, groups, 1))
    return np.asarray(common + RANDOM.normal(0, 0.2, (rows, groups, taps)), np.float32)


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (0.0, np.inf), (0.0, 6.0)])
def test_learned_rounding_beats_the_nearest_where_inputs_resemble_each_other(
    groups: int, bounds: tuple[float, float]
) -> None:
    weight = draw(8, 9)
    weight[3, 4] = 0
    layer = a_layer(weight, groups=groups, bounds=bounds, bias=draw(8))
    windows = correlated_inputs(1000, groups, 9)
    assert layer.bias is not None
    wanted = multiply(layer, weight, windows) + layer.bias
    grid = WeightGrid(bits=4)
    found = learn_rounding(layer, grid, windows, wanted, Learning(400, 2e-2))
    assert found.error_ratio < 0.6
    integers = found.weight / grid.steps(weight)
    assert np.abs(integers - np.rint(integers)).max() < 1e-4
    assert (np.abs(integers - weight / grid.steps(weight)) < 1 + 1e-4).all(), "up or down"
    np.testing.assert_allclose(grid.steps(found.weight), grid.steps(weight), rtol=1e-6)
    assert found.weight[3, 4] == 0


def test_where_learning_does_not_pay_the_nearest_stays() -> None:
    layer = a_layer(draw(4, 6))
    windows = draw(40, 1, 6)
    noise = multiply(layer, layer.weight, windows) + 100 * draw(40, 4)
    found = learn_rounding(layer, WeightGrid(bits=4), windows, noise, Learning(50, 0.5))
    assert found.error_ratio <= 1
    if found.error_ratio == 1:
        np.testing.assert_array_equal(found.weight, WeightGrid(bits=4).nearest(layer.weight))
