"""Weight pruning, on networks that learn in a second."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from support.compressor_rig import CLASSES, a_task, trained_tiny
from support.pruning_rig import stage_of
from trimtab_compressor.agreement import top1_accuracy
from trimtab_compressor.checkpoint import load_checkpoint, save_checkpoint
from trimtab_compressor.passes.distill import distill
from trimtab_compressor.passes.prune_channels import prune_channels
from trimtab_compressor.passes.prune_weights import NOTE, prune_weights
from trimtab_compressor.passes.quantize_aware import quantize_aware
from trimtab_compressor.passes.stage import Network
from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.specs.distillation import Distill
from trimtab_compressor.specs.pruning import PruneChannels, PruneWeights
from trimtab_compressor.specs.quantize_aware import QuantizeAware
from trimtab_compressor.structure import masked_layers
from trimtab_compressor.task import Task, Training
from trimtab_protocol.errors import ConfigError, ModelError

HIDDEN = "4"
"""The dense layer between the first and the last layer of the tiny network."""


@pytest.fixture(scope="module")
def task() -> Task:
    return a_task(training=Training(epochs=4, fine_tune_epochs=2, batch=32, learning_rate=5e-3))


@pytest.fixture(scope="module")
def base(task: Task) -> nn.Module:
    return trained_tiny(task)


def prune(task: Task, base: nn.Module, **changes: object) -> Network:
    return prune_weights(stage_of(PruneWeights(**changes), task, base))  # type: ignore[arg-type]


def zero_share(model: nn.Module, name: str) -> float:
    weight = dict(model.named_modules())[name].weight
    assert isinstance(weight, torch.Tensor)
    return float((weight == 0).double().mean())


def accuracy(model: nn.Module, task: Task) -> float:
    return top1_accuracy(predict(model, task.test.inputs).numpy(), task.test.labels)


@pytest.mark.parametrize("schedule", ["cubic", "one_shot"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_ratio_is_reached_exactly_and_the_network_still_answers(
    schedule: str, scope: str, task: Task, base: nn.Module
) -> None:
    made = prune(task, base, ratio=0.8, schedule=schedule, scope=scope, min_layer_weights=0)
    assert zero_share(made.module, HIDDEN) == pytest.approx(0.8, abs=1e-3)
    assert accuracy(made.module, task) >= 0.95
    assert zero_share(made.module, "0") == zero_share(made.module, "6") == 0, "first and last"


def test_global_pruning_spares_the_layer_with_the_larger_weights(
    task: Task, base: nn.Module
) -> None:
    louder = copy.deepcopy(base)
    assert isinstance(louder, nn.Sequential)
    assert isinstance(louder[0].weight, torch.Tensor)
    louder[0].weight.data *= 100
    changes = {"ratio": 0.5, "is_first_pruned": True, "min_layer_weights": 0}
    joint = prune(task, louder, scope="global", is_fine_tuned=False, **changes).module
    assert zero_share(joint, "0") < 0.05
    apart = prune(task, louder, scope="layer", is_fine_tuned=False, **changes).module
    assert zero_share(apart, "0") == zero_share(apart, HIDDEN) == pytest.approx(0.5)


def test_two_of_four_leaves_at_most_two_in_every_group_after_fine_tuning(
    task: Task, base: nn.Module
) -> None:
    made = prune(task, base, pattern="2:4")
    weight = dict(made.module.named_modules())[HIDDEN].weight
    assert isinstance(weight, torch.Tensor)
    kept = (weight.reshape(-1, 4) != 0).sum(dim=1)
    assert int(kept.max()) == 2
    assert made.findings["ratio_kept"] == 0.5
    assert accuracy(made.module, task) >= 0.95


def test_findings_say_what_was_reached_and_that_it_is_not_faster(
    task: Task, base: nn.Module
) -> None:
    found = prune(task, base, ratio=0.9).findings
    assert found["layers_pruned"] == 1
    assert found["zeros_of_pruned_layers"] == pytest.approx(0.9, abs=1e-3)
    inner = 144 * 32
    everything = sum(row.numel() for row in base.parameters())
    assert found["zeros_of_network"] == pytest.approx(0.9 * inner / everything, abs=1e-3)
    before, after = found["compressed_parameter_bytes_before"], found["compressed_parameter_bytes"]
    assert isinstance(before, int)
    assert isinstance(after, int)
    assert after < before / 3
    assert str(found["compressor"]).startswith("zlib")
    assert found["note"] == NOTE
    assert "not faster" in NOTE


def test_later_training_and_a_checkpoint_keep_the_zeros(
    task: Task, base: nn.Module, tmp_path: Path
) -> None:
    pruned = prune(task, base, ratio=0.8, is_fine_tuned=False).module
    save_checkpoint(pruned, 1.0, tmp_path / "net.pt")
    again, _ = load_checkpoint(task, tmp_path / "net.pt")
    assert list(masked_layers(again)) == [HIDDEN]
    taught = distill(stage_of(Distill(), task, again)).module
    assert zero_share(taught, HIDDEN) == pytest.approx(0.8, abs=1e-3)
    before, after = (dict(row.named_modules())[HIDDEN].weight for row in (again, taught))
    assert isinstance(before, torch.Tensor)
    assert isinstance(after, torch.Tensor)
    assert torch.equal(before == 0, after == 0)
    assert not torch.equal(before, after), "what is left was trained"


def test_quantization_aware_training_keeps_the_zeros(task: Task, base: nn.Module) -> None:
    pruned = prune(task, base, ratio=0.8, is_fine_tuned=False).module
    trained = quantize_aware(stage_of(QuantizeAware(epochs=1), task, pruned)).module
    assert zero_share(trained, HIDDEN) == pytest.approx(0.8, abs=1e-3)


def test_channels_can_go_after_weights(task: Task, base: nn.Module) -> None:
    pruned = prune(task, base, ratio=0.8, is_fine_tuned=False).module
    narrow = prune_channels(stage_of(PruneChannels(ratio=0.5), task, pruned)).module
    assert list(masked_layers(narrow)) == [HIDDEN]
    assert zero_share(narrow, HIDDEN) > 0.3


def test_steps_stop_before_the_allowed_drop_and_keep_what_was_good(
    task: Task, base: nn.Module
) -> None:
    made = prune(task, base, ratio=0.998, steps=2, max_drop=2.0, is_fine_tuned=False)
    assert made.findings["steps_kept"] == 1
    assert made.findings["ratio_kept"] == pytest.approx(0.499)
    assert zero_share(made.module, HIDDEN) == pytest.approx(0.499, abs=1e-3)
    assert "allowed are 2" in str(made.findings["stopped"])
    assert str(made.findings["accuracy_by_step"]).startswith("50%: ")
    assert accuracy(made.module, task) == pytest.approx(made.findings["accuracy"], abs=1e-6)


def test_a_first_step_that_loses_too_much_is_an_error(task: Task, base: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"not even the first step.*allow a larger max_drop"):
        prune(task, base, ratio=0.999, max_drop=1.0, is_fine_tuned=False)


def test_nothing_left_to_prune_is_an_error_that_says_what_to_allow(
    task: Task, base: nn.Module
) -> None:
    with pytest.raises(ModelError, match=r"removed nothing.*min_layer_weights=100000"):
        prune(task, base, ratio=0.5, min_layer_weights=100_000)
    with pytest.raises(ModelError, match="removed nothing"):
        prune(task, base, pattern="2:5")  # 144 inputs are no multiple of 5


def test_layers_that_the_task_ignores_are_left_alone_and_must_exist(base: nn.Module) -> None:
    changes = {"is_first_pruned": True, "min_layer_weights": 0, "is_fine_tuned": False}
    kept = prune(a_task(ignored_layers=("0",)), base, ratio=0.5, **changes).module
    assert zero_share(kept, "0") == 0
    with pytest.raises(ConfigError, match="names 'head'"):
        prune(a_task(ignored_layers=("head",)), base, ratio=0.5, **changes)


def test_a_layer_that_lost_everything_is_an_error(task: Task, base: nn.Module) -> None:
    silent = copy.deepcopy(base)
    assert isinstance(silent, nn.Sequential)
    assert isinstance(silent[0].weight, torch.Tensor)
    silent[0].weight.data *= 1e-6
    with pytest.raises(ModelError, match="no weight of '0'"):
        prune(task, silent, ratio=0.9, scope="global", is_first_pruned=True, min_layer_weights=0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "either ratio"),
        ({"ratio": 0.5, "pattern": "2:4"}, "either ratio"),
        ({"ratio": 1.0}, "between 0 and 1"),
        ({"pattern": "4:2"}, "N below M"),
        ({"pattern": "two of four"}, "N:M"),
        ({"pattern": "2:4", "scope": "global"}, "one step of scope 'layer'"),
        ({"pattern": "2:4", "steps": 2}, "one step"),
        ({"ratio": 0.5, "steps": 0}, "at least 1"),
        ({"ratio": 0.5, "max_drop": -1.0}, "0 points or more"),
        ({"ratio": 0.5, "soft_weight": 2.0}, "soft_weight"),
    ],
)
def test_nonsense_is_refused_with_a_remedy(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PruneWeights(**given)  # type: ignore[arg-type]


def test_soft_answers_of_the_base_can_be_part_of_fine_tuning(task: Task, base: nn.Module) -> None:
    plain = prune(task, base, ratio=0.9).module
    taught = prune(task, base, ratio=0.9, soft_weight=1.0).module
    wanted = predict(base, task.test.inputs).softmax(dim=1).numpy()

    def distance(model: nn.Module) -> float:
        found = predict(model, task.test.inputs).softmax(dim=1).numpy()
        return float(np.abs(found - wanted).mean())

    assert wanted.shape[1] == CLASSES
    assert distance(taught) != distance(plain)
    assert accuracy(taught, task) >= 0.95
