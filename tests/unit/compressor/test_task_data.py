"""A task in as few lines as possible: what it takes, and one clear error for what it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from support.compressor_rig import build_tiny, draw_samples
from trimtab_compressor.cache import Cache
from trimtab_compressor.needs import check_needs
from trimtab_compressor.network import new_network
from trimtab_compressor.network_line import NetworkLine
from trimtab_compressor.recipe_book import BASE_PASSES
from trimtab_compressor.recipes import RECIPES
from trimtab_compressor.task import Task
from trimtab_compressor.task_data import Samples, collect_samples
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import ModelFormat

TRAIN, TEST = draw_samples(400, seed=1), draw_samples(40, seed=2)
TENSORS = TensorDataset(torch.from_numpy(TEST.inputs), torch.from_numpy(TEST.labels))


def few_lines(**changes: Any) -> Task:
    given: dict[str, Any] = {"name": "t", "build_model": build_tiny, "train": TRAIN, "test": TEST}
    return Task(**{**given, **changes})


def test_what_the_data_say_need_not_be_said() -> None:
    task = few_lines()
    assert task.input_shape == (1, 8, 8)
    assert task.classes == 3
    assert np.array_equal(task.calibration, TRAIN.inputs[:300])


def yield_pairs() -> Iterator[tuple[Any, int]]:
    for row, label in zip(TEST.inputs, TEST.labels, strict=True):
        yield torch.from_numpy(row).requires_grad_(), int(label)


class Folder(Dataset[Any]):
    """Read by index, without an end of its own; labels are arrays of one."""

    def __len__(self) -> int:
        return len(TEST.labels)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return TEST.inputs[row].astype(np.float64), TEST.labels[row : row + 1]


@pytest.mark.parametrize(
    "source",
    [
        (TEST.inputs, TEST.labels),
        (torch.from_numpy(TEST.inputs), torch.from_numpy(TEST.labels)),
        TENSORS,
        DataLoader(TENSORS, batch_size=7),
        DataLoader(TENSORS, batch_size=None),
        Folder(),
        list(zip(TEST.inputs, TEST.labels, strict=True)),
        yield_pairs(),
    ],
    ids=["arrays", "tensors", "dataset", "loader", "unbatched", "folder", "list", "generator"],
)
def test_data_come_in_any_form_and_are_the_same_arrays(source: object) -> None:
    found = few_lines(test=source).test
    assert found.inputs.dtype == np.float32
    assert np.array_equal(found.inputs, TEST.inputs)
    assert np.array_equal(found.labels, TEST.labels)


def test_a_loader_that_shuffles_gives_the_same_order_at_every_run() -> None:
    one, other = (
        collect_samples(DataLoader(TENSORS, batch_size=8, shuffle=True), "x") for _ in range(2)
    )
    assert np.array_equal(one.inputs, other.inputs)
    assert not np.array_equal(one.inputs, TEST.inputs)


def yield_other_shapes() -> Iterator[tuple[Any, int]]:
    yield TEST.inputs[0], 0
    yield TEST.inputs[0, :, :4], 1


def raise_at_the_second() -> Iterator[tuple[Any, int]]:
    yield TEST.inputs[0], 0
    raise OSError("disk is gone")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (yield_other_shapes(), "train: inputs of item 1 have shape [1, 4, 8], those of item 0 [1, 8, 8]"),
        (raise_at_the_second(), "train: reading item 1 raised OSError: disk is gone"),
        ([1, 2], "train: item 0 is int; it must be a pair (input, label)"),
        ([(1, 2, 3)], "train: item 0 is 3 things"),
        ([(TEST.inputs[:4], TEST.labels[:3])], "input of shape [4, 1, 8, 8] and a label of shape [3]"),
        ([], "train is empty"),
        (7, "train is a int; give Samples(inputs, labels)"),
        ([(np.zeros((1, 8, 8), np.uint8), 0)], "train: inputs are uint8; give floats"),
        ([(TEST.inputs[0], 0.5)], "train.labels must be an array of integers"),
        ([(TEST.inputs[0] * np.nan, 0)], "train.inputs holds NaN"),
        (Samples(TRAIN.inputs[:, :, :4], TRAIN.labels), "test.inputs has samples of shape [1, 8, 8]"),
    ],
)  # fmt: skip
def test_data_that_cannot_be_used_are_named_with_the_item(source: object, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        few_lines(train=source)
    assert said in caught.value.message


class Lightning(nn.Module):
    """Such as a LightningModule: a module with much besides `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build_tiny()

    def training_step(self) -> None:
        raise AssertionError("we train ourselves")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.net(x)
        return found


@pytest.mark.parametrize("given", [Lightning(), Lightning, lambda: build_tiny(1.0)])
def test_a_network_is_taken_as_it_is_in_its_one_width(given: object) -> None:
    task = few_lines(build_model=given)
    one, other = new_network(task, 1.0), new_network(task, 1.0)
    assert one is not other
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)
    if isinstance(given, nn.Module):
        assert torch.equal(next(one.parameters()), next(given.parameters()))
    with pytest.raises(ConfigError, match=r"width 0\.5 is asked for, but build_model is a"):
        new_network(task, 0.5)
    with pytest.raises(ConfigError, match="distill needs networks of other widths; let the task's"):
        check_needs(RECIPES["distill50"], ModelFormat.ONNX, task.has)
    check_needs(RECIPES["prune50_static_w8a8"], ModelFormat.ONNX, task.has)


def needs_two(width: float, depth: int) -> nn.Module:
    raise AssertionError(f"{width} {depth}")


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"or a torch\.nn\.Module; it is a str"):
        few_lines(build_model="resnet18")
    with pytest.raises(ConfigError, match="build_model needs width, depth"):
        few_lines(build_model=needs_two)


def test_a_network_with_nan_in_its_weights_is_named_before_training() -> None:
    broken = build_tiny()
    next(broken.parameters()).data[0] = float("nan")
    with pytest.raises(
        ConfigError, match=r"'0\.weight' of the network that build_model gives holds NaN"
    ):
        new_network(few_lines(build_model=broken), 1.0)


def test_other_initial_weights_are_another_step(tmp_path: object) -> None:
    cache = Cache(tmp_path)  # type: ignore[arg-type]
    torch.manual_seed(1)
    one, other = build_tiny(), build_tiny()
    keys = [
        NetworkLine(few_lines(build_model=model), cache).points(BASE_PASSES)[0].result.key
        for model in (one, other, one)
    ]
    assert keys[0] == keys[2] != keys[1]
