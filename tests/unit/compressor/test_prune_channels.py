"""Channel pruning: dependency groups, importance, grids, steps."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from support.compressor_rig import CLASSES, a_task, trained_tiny
from support.pruning_rig import residual_task, stage_of, trained_residual
from trimtab_compressor.agreement import top1_accuracy
from trimtab_compressor.checkpoint import load_checkpoint, save_checkpoint
from trimtab_compressor.macs import count_macs, count_parameters
from trimtab_compressor.passes.prune_channels import channel_counts, prune_channels
from trimtab_compressor.passes.prune_importance import taylor_gates
from trimtab_compressor.passes.prune_steps import fine_tune
from trimtab_compressor.passes.stage import Network
from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.specs.pruning import PruneChannels
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError, ModelError


def prune(task: Task, base: nn.Module, **changes: object) -> Network:
    return prune_channels(stage_of(PruneChannels(**changes), task, base))  # type: ignore[arg-type]


def accuracy(model: nn.Module, task: Task) -> float:
    return top1_accuracy(predict(model, task.test.inputs).numpy(), task.test.labels)


@pytest.mark.parametrize("importance", ["magnitude", "bn_scale", "taylor"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_residual_network_with_depthwise_layers_gets_narrow_and_still_answers(
    importance: str, scope: str
) -> None:
    task, base = residual_task(), trained_residual()
    made = prune(task, base, ratio=0.5, importance=importance, scope=scope, round_to=4)
    before, after = channel_counts(base), channel_counts(made.module)
    assert after["head"] == CLASSES
    assert all(count % 4 == 0 for name, count in after.items() if name != "head")
    assert 0.3 < sum(after.values()) / sum(before.values()) < 0.75
    layers: dict[str, Any] = dict(made.module.named_modules())
    depthwise = layers["blocks.0.body.3"]
    assert depthwise.groups == depthwise.out_channels == after["blocks.0.body.0"]
    assert after["stem.0"] == after["blocks.0.body.6"], "a residual stream has one width"
    assert accuracy(made.module, task) >= 0.9
    assert made.findings["macs"] == count_macs(made.module, task.input_shape)
    assert made.findings["parameters"] == count_parameters(made.module)
    assert f"blocks.0.body.0 32>{after['blocks.0.body.0']}" in str(made.findings["widths"])


def test_a_pruned_residual_network_comes_back_from_its_checkpoint(tmp_path: Path) -> None:
    task, base = residual_task(), trained_residual()
    pruned = prune(task, base, ratio=0.5, is_fine_tuned=False).module
    save_checkpoint(pruned, 1.0, tmp_path / "net.pt")
    again, _ = load_checkpoint(task, tmp_path / "net.pt")
    expected = predict(pruned, task.test.inputs)
    assert torch.equal(predict(again, task.test.inputs), expected)


def test_layers_can_have_ratios_of_their_own() -> None:
    task, base = residual_task(), trained_residual()
    own = ("stem.0=0", "blocks.2.body.0=.75")
    made = prune(task, base, ratio=0.5, layer_ratios=own, round_to=4, is_fine_tuned=False)
    after = channel_counts(made.module)
    assert after["stem.0"] == 16
    assert after["blocks.2.body.0"] == 12
    assert after["blocks.0.body.0"] == 16
    with pytest.raises(ConfigError, match=r"layer_ratios names 'neck'.*stem\.0"):
        prune(task, base, ratio=0.5, layer_ratios=("neck=0.5",))


def test_the_grid_comes_from_the_device_class_or_is_given() -> None:
    task = a_task()
    base = trained_tiny(task)
    named = {"device_class": "x86-avx2", "precision": "int8", "is_fine_tuned": False}
    by_class = prune(task, base, ratio=0.3, **named)
    assert by_class.findings["grid"] == 16
    assert by_class.findings["grid_from"] == "x86-avx2, int8"
    assert channel_counts(by_class.module) == {"0": 16, "4": 16, "6": CLASSES}
    given = prune(task, base, ratio=0.3, round_to=2, **named)
    assert (given.findings["grid"], given.findings["grid_from"]) == (2, "given")
    assert channel_counts(given.module)["4"] == 22
    unknown = prune(task, base, ratio=0.5, is_fine_tuned=False)
    assert (unknown.findings["grid"], unknown.findings["grid_from"]) == (8, "default")


class Gated(nn.Module):
    """A convolution whose channels can be closed by hand."""

    def __init__(self, *, has_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4) if has_norm else nn.Identity()
        self.head = nn.Linear(4 * 36, CLASSES)
        self.gate = torch.ones(4)

    def forward(self, x: Tensor) -> Tensor:
        found = self.norm(self.conv(x)) * self.gate[:, None, None]
        result: Tensor = self.head(torch.relu(found).flatten(1))
        return result


@pytest.mark.parametrize("has_norm", [False, True])
def test_taylor_importance_is_the_gradient_of_a_gate(*, has_norm: bool) -> None:
    task = a_task()
    torch.manual_seed(1)
    model = Gated(has_norm=has_norm)
    with torch.no_grad():
        for row in model.norm.parameters():
            row.uniform_(0.5, 1.5)
    found = taylor_gates(model, task)[model.norm if has_norm else model.conv]
    wanted = torch.zeros(4)
    batches = list(torch.split(torch.arange(len(task.train.inputs)), task.training.batch))
    for rows in batches:
        model.gate = torch.ones(4, requires_grad=True)
        logits = model(torch.from_numpy(task.train.inputs)[rows])
        labels = torch.from_numpy(task.train.labels)[rows]
        nn.functional.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        assert model.gate.grad is not None
        wanted += model.gate.grad**2 / len(batches)
    assert torch.allclose(found, wanted, rtol=1e-3)


def test_importance_decides_which_channels_go() -> None:
    task, base = residual_task(), trained_residual()
    layers: dict[str, Any] = dict(base.named_modules())
    with torch.no_grad():
        layers["blocks.0.body.1"].weight[:16] = 0.001
        layers["blocks.0.body.4"].weight[:16] = 0.001
    expected = layers["blocks.0.body.1"].running_mean[16:].clone()
    made = prune(task, base, ratio=0.5, importance="bn_scale", round_to=4, is_fine_tuned=False)
    after: dict[str, Any] = dict(made.module.named_modules())
    assert torch.equal(after["blocks.0.body.1"].running_mean, expected)


def test_sparse_training_presses_scales_towards_zero() -> None:
    task, base = residual_task(), trained_residual()
    spec: dict[str, object] = {"ratio": 0.5, "importance": "bn_scale", "is_fine_tuned": False}
    pressed = prune(task, base, sparse_epochs=1, sparse_weight=0.05, **spec).module
    plain = prune(task, base, sparse_epochs=1, sparse_weight=1e-9, **spec).module

    def norm(model: nn.Module) -> float:
        rows = [row for row in model.modules() if isinstance(row, nn.BatchNorm2d)]
        return sum(float(row.weight.detach().abs().sum()) for row in rows)

    assert norm(pressed) < 0.99 * norm(plain)


def test_bn_scale_without_batch_normalisation_is_an_error() -> None:
    task = a_task()
    with pytest.raises(ModelError, match="needs batch normalisation"):
        prune(task, trained_tiny(task), ratio=0.5, importance="bn_scale")


def test_several_steps_reach_the_same_widths_and_tell_their_accuracies() -> None:
    task, base = residual_task(), trained_residual()
    made = prune(task, base, ratio=0.75, steps=3, round_to=4)
    assert channel_counts(made.module)["blocks.0.body.0"] == 8
    assert made.findings["steps_kept"] == 3
    rows = str(made.findings["accuracy_by_step"]).split("; ")
    assert [row.split(":")[0] for row in rows] == ["25%", "50%", "75%"]
    assert made.findings["ratio_kept"] == 0.75


def test_a_step_that_loses_too_much_is_taken_back() -> None:
    task, base = residual_task(), trained_residual()
    spec: dict[str, object] = {"ratio": 0.9, "steps": 9, "round_to": 1, "is_fine_tuned": False}
    made = prune(task, base, max_drop=5.0, **spec)
    assert 0 < float(str(made.findings["ratio_kept"])) < 0.9
    assert 100 * (accuracy(base, task) - accuracy(made.module, task)) <= 5.0
    assert "allowed are 5" in str(made.findings["stopped"])


def test_a_later_step_that_fails_costs_nothing_that_was_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def diverge(model: nn.Module, *rest: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            for row in model.parameters():
                row.data.fill_(float("nan"))
            raise ModelError("training diverged")
        fine_tune(model, *rest)

    monkeypatch.setattr("trimtab_compressor.passes.prune_channels.fine_tune", diverge)
    task, base = residual_task(), trained_residual()
    made = prune(task, base, ratio=0.5, steps=2, round_to=4)
    assert made.findings["steps_kept"] == 1
    assert made.findings["stopped"] == "step 2 failed: training diverged"
    assert accuracy(made.module, task) >= 0.9


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.embed(x[:, 0])  # (n, 1, 8, 8) -> (n, 8, 16)
        found: Tensor = self.head(self.attention(rows, rows, rows)[0].mean(dim=1))
        return found


class HandMade(nn.Module):
    """Cuts channels into heads by a constant, which no width but the first fits."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.embed(x[:, 0]).reshape(-1, 8, 2, 8).transpose(1, 2).reshape(-1, 8, 16)
        found: Tensor = self.head(rows.mean(dim=1))
        return found


def test_attention_is_refused_with_one_clear_error() -> None:
    task = a_task(build_model=lambda _: Attentive())
    with pytest.raises(ConfigError, match=r"cannot follow 'attention', a MultiheadAttention; name"):
        prune(task, Attentive(), ratio=0.5)
    with pytest.raises(ModelError, match="cannot be followed"):
        prune(a_task(build_model=lambda _: HandMade()), HandMade(), ratio=0.5)


def test_the_network_that_came_is_not_changed() -> None:
    task, base = residual_task(), trained_residual()
    stage = stage_of(PruneChannels(ratio=0.5), task, base)
    before = copy.deepcopy(stage.model)
    prune_channels(stage)
    expected = predict(before, task.test.inputs).numpy()
    assert np.array_equal(predict(stage.model, task.test.inputs).numpy(), expected)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ratio": 0.5, "sparse_epochs": 1}, "belongs to importance 'bn_scale'"),
        ({"ratio": 0.5, "layer_ratios": ("conv",)}, "give texts such as"),
        ({"ratio": 0.5, "layer_ratios": ("conv=1.5",)}, "give texts such as"),
        ({"ratio": 0.5, "steps": 0}, "at least 1"),
        ({"ratio": 0.5, "round_to": 0}, "at least 1"),
        ({"ratio": 0.5, "max_drop": -0.1}, "0 points or more"),
    ],
)
def test_nonsense_is_refused_with_a_remedy(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PruneChannels(**given)  # type: ignore[arg-type]
