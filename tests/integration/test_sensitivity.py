"""What each layer costs when it alone is quantized, on the real runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.layer_models import draw_images, write_block_onnx
from support.layer_models_tflite import write_block_tflite
from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.evaluate import run_file
from trimtab_compressor.layers.port import Update
from trimtab_compressor.layers.table import open_layers
from trimtab_compressor.passes.quantize_one import open_quantize_one
from trimtab_compressor.runtimes.port import Kernels
from trimtab_compressor.sensitivity import LayerCost, measure_sensitivity, measure_sqnr, rank
from trimtab_compressor.specs.quantization import QuantizeStatic

SPEC = QuantizeStatic(is_per_channel=False)
NAMES = {"stem", "expand", "depth", "project", "wide", "hidden", "answer"}


@pytest.fixture(params=["onnx", "tflite"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, AnyArray]]:
    """A file in which one weight of `wide` is so large that the others of its tensor round to 0."""
    images = draw_images(40)
    path, target = tmp_path / f"net.{request.param}", tmp_path / f"damaged.{request.param}"
    if request.param == "onnx":
        write_block_onnx(path, spread=2)
    else:
        write_block_tflite(path, spread=2)
        images = np.ascontiguousarray(np.moveaxis(images, 1, -1))
    graph = open_layers(path)
    weight = next(layer.weight.copy() for layer in graph.layers if layer.name == "wide")
    weight[0, 0, 0, 0] = 300 * np.abs(weight).max()
    graph.write({"wide": Update(weight)}, target)
    return target, {"image": images}


def test_the_layer_with_an_outlier_is_the_most_sensitive(
    damaged: tuple[Path, dict[str, AnyArray]],
) -> None:
    path, images = damaged
    told: list[tuple[int, int, str]] = []
    found = measure_sensitivity(path, SPEC, images, images, progress=lambda *row: told.append(row))
    assert found.names()[0] == "wide"
    assert set(found.names()) == NAMES
    assert [row[0] for row in told] == list(range(7))
    assert {row[2] for row in told} == NAMES
    assert found.accuracy is None
    assert found.left_in_float == ()


def test_with_labels_the_accuracy_that_is_lost_is_measured(
    damaged: tuple[Path, dict[str, AnyArray]],
) -> None:
    path, images = damaged
    labels = run_file(path, images, Kernels.EXACT)[0].argmax(axis=1)
    found = measure_sensitivity(path, SPEC, images, images, labels=labels)
    assert found.accuracy == 1
    assert all(row.drop is not None and row.drop >= 0 for row in found.costs)


def test_only_the_one_layer_becomes_integers(damaged: tuple[Path, dict[str, AnyArray]]) -> None:
    path, images = damaged
    with open_quantize_one(path, SPEC, images) as quantize:
        quantized = quantize("depth")
        assert quantized is not None
        left = [layer.name for layer in open_layers(quantized).layers]
        assert "depth" not in left
        assert set(left) >= NAMES - {"depth"}
        assert quantize("no such layer") is None


def test_chance_does_not_rank_a_layer_above_a_worse_signal() -> None:
    costs = [
        LayerCost("lucky", "conv", 20.0, drop=-0.01),
        LayerCost("one sample", "conv", 50.0, drop=0.001),
        LayerCost("certain", "conv", 40.0, drop=0.05, is_drop_certain=True),
        LayerCost("worst", "conv", 10.0, drop=0.3, is_drop_certain=True),
    ]
    assert [row.layer for row in rank(costs)] == ["worst", "certain", "lucky", "one sample"]


def test_the_signal_to_noise_ratio_is_in_decibels_over_all_outputs() -> None:
    expected = [np.full((2, 5), 10.0), np.zeros((2, 1))]
    assert measure_sqnr([np.full((2, 5), 11.0), np.zeros((2, 1))], expected) == pytest.approx(20)
    assert measure_sqnr(expected, expected) == 200
