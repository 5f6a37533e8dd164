"""Passes over a network, on a task that learns in a second."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from support.compressor_rig import CLASSES, a_task, build_tiny, trained_tiny
from trimtab_compressor.agreement import top1_accuracy
from trimtab_compressor.checkpoint import load_checkpoint, save_checkpoint
from trimtab_compressor.macs import count_parameters
from trimtab_compressor.network import new_network
from trimtab_compressor.passes.distill import distill
from trimtab_compressor.passes.prune_channels import prune_channels
from trimtab_compressor.passes.stage import NetworkSpecT, NetworkStage
from trimtab_compressor.passes.table import FILE_PASSES, NETWORK_PASSES
from trimtab_compressor.passes.training_loop import Schedule, predict, run_epochs
from trimtab_compressor.recipes import RECIPES
from trimtab_compressor.specs.distillation import Distill
from trimtab_compressor.specs.pruning import PruneChannels
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError, ModelError, StorageError


@pytest.fixture(scope="module")
def task() -> Task:
    return a_task()


@pytest.fixture(scope="module")
def base(task: Task) -> nn.Module:
    return trained_tiny(task)


def accuracy(model: nn.Module, task: Task) -> float:
    return top1_accuracy(predict(model, task.test.inputs).numpy(), task.test.labels)


def make_stage(spec: NetworkSpecT, task: Task, base: nn.Module) -> NetworkStage[NetworkSpecT]:
    """A stage over a copy, so that the module's base stays as it is."""
    return NetworkStage(spec=spec, task=task, model=copy.deepcopy(base), base=base)


def test_every_pass_of_every_recipe_is_in_the_table() -> None:
    for recipe in RECIPES.values():
        assert all(spec.pass_name in NETWORK_PASSES for spec in recipe.network_passes)
        for model_format, specs in recipe.file_passes.items():
            assert all((spec.pass_name, model_format) in FILE_PASSES for spec in specs)


def test_training_learns_and_repeats_itself(task: Task, base: nn.Module) -> None:
    assert accuracy(base, task) >= 0.95
    assert accuracy(build_tiny(), task) < 0.8
    again = trained_tiny(task)
    for one, other in zip(base.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_pruning_leaves_half_of_the_channels_and_the_head(task: Task, base: nn.Module) -> None:
    pruned = prune_channels(make_stage(PruneChannels(ratio=0.5), task, base)).module
    assert isinstance(pruned, nn.Sequential)
    widths = [pruned[0].out_channels, pruned[4].out_features, pruned[6].out_features]
    assert widths == [8, 16, CLASSES]
    assert accuracy(pruned, task) >= 0.9


def test_ignored_layers_keep_their_width(base: nn.Module) -> None:
    task = a_task(ignored_layers=("0",))
    spec = PruneChannels(ratio=0.5, is_fine_tuned=False)
    pruned = prune_channels(make_stage(spec, task, base)).module
    assert isinstance(pruned, nn.Sequential)
    assert [pruned[0].out_channels, pruned[4].out_features] == [16, 16]


def test_pruning_that_removes_nothing_is_an_error(task: Task, base: nn.Module) -> None:
    with pytest.raises(ModelError, match="removed nothing"):
        prune_channels(make_stage(PruneChannels(ratio=0.1, round_to=64), task, base))


def test_an_ignored_layer_that_does_not_exist_is_named(base: nn.Module) -> None:
    task = a_task(ignored_layers=("head",))
    with pytest.raises(ConfigError, match="'head', the network has 0, 1"):
        prune_channels(make_stage(PruneChannels(ratio=0.5), task, base))


def test_a_new_student_has_its_width_and_learns(task: Task, base: nn.Module) -> None:
    student = distill(make_stage(Distill(width=0.5), task, base)).module
    assert count_parameters(student) == count_parameters(build_tiny(0.5))
    assert accuracy(student, task) >= 0.9


def test_training_that_diverges_is_an_error(task: Task) -> None:
    def loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return logits.sum() * float("nan")

    with pytest.raises(ModelError, match="lower the learning rate"):
        run_epochs(build_tiny(), task.train.inputs, loss, Schedule(1, 32, 1e-3, 0.0, 0))


def test_no_epochs_change_nothing(task: Task, base: nn.Module) -> None:
    before = copy.deepcopy(base.state_dict())
    run_epochs(base, task.train.inputs, lambda logits, _: logits.sum(), Schedule(0, 8, 1.0, 0, 0))
    assert all(torch.equal(before[name], row) for name, row in base.state_dict().items())


def test_a_pruned_network_comes_back_from_its_checkpoint(
    task: Task, base: nn.Module, tmp_path: Path
) -> None:
    spec = PruneChannels(ratio=0.5, is_fine_tuned=False)
    pruned = prune_channels(make_stage(spec, task, base)).module
    save_checkpoint(pruned, 1.0, tmp_path / "net.pt")
    again, width = load_checkpoint(task, tmp_path / "net.pt")
    assert width == 1.0
    expected = predict(pruned, task.test.inputs).numpy()
    assert np.array_equal(predict(again, task.test.inputs).numpy(), expected)


def test_buffers_of_a_pruned_network_come_back_too(tmp_path: Path) -> None:
    def build(width: float = 1.0) -> nn.Module:
        del width
        return nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(16 * 36, CLASSES)
        )

    task = a_task(build_model=build)
    model = build()
    predict(model.train(), task.test.inputs)
    spec = PruneChannels(ratio=0.5, is_fine_tuned=False)
    pruned = prune_channels(make_stage(spec, task, model)).module
    save_checkpoint(pruned, 1.0, tmp_path / "net.pt")
    again, _ = load_checkpoint(task, tmp_path / "net.pt")
    assert isinstance(again, nn.Sequential)
    assert again[1].num_features == 8
    expected = predict(pruned, task.test.inputs)
    assert torch.allclose(predict(again, task.test.inputs), expected)


def raise_value_error(width: float = 1.0) -> nn.Module:
    raise ValueError(f"no width {width}")


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (raise_value_error, "raised ValueError: no width 0.5"),
        (lambda _: nn.Sequential(nn.Flatten(), nn.Linear(7, 3)), "raised RuntimeError"),
        (lambda _: nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), "gives \\[2, 5\\] for two"),
        (lambda _: nn.LSTM(8, 3), "LSTM|RuntimeError|tuple"),
        (lambda _: None, "raised AttributeError"),
    ],
)
def test_a_network_that_does_not_fit_its_task_is_named_before_training(
    build: Callable[[float], nn.Module], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        new_network(a_task(build_model=build), 0.5)


def test_a_damaged_checkpoint_says_what_to_do(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(StorageError, match="delete it"):
        load_checkpoint(task, path)
