"""Distillation by features, on a task that learns in a second."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from support.compressor_rig import CLASSES, a_task, build_tiny, trained_tiny
from support.networks import accuracy, make_stage, same_weights
from trimtab_compressor.passes.distill import distill
from trimtab_compressor.passes.distill_features import (
    distill_features,
    match_places,
    pair_layers,
    watch,
)
from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.specs.distillation import Distill, DistillFeatures
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError


@pytest.fixture(scope="module")
def task() -> Task:
    return a_task()


@pytest.fixture(scope="module")
def base(task: Task) -> nn.Module:
    return trained_tiny(task)


def features_of(model: nn.Module, layer: str, task: Task) -> torch.Tensor:
    with watch(model, [layer]) as seen:
        predict(model, task.test.inputs[:100])  # one batch
        return seen[layer]


def unexplained(student: nn.Module, teacher: nn.Module, layer: str, task: Task) -> float:
    """The share of the teacher's features that no linear map of the student's gives."""
    own, wanted = (features_of(row, layer, task).double() for row in (student, teacher))
    own = torch.cat([own, torch.ones(len(own), 1)], dim=1)
    found = own @ torch.linalg.lstsq(own, wanted).solution
    return float((found - wanted).square().sum() / wanted.square().sum())


def test_a_narrow_student_learns_to_see_what_its_teacher_sees(task: Task, base: nn.Module) -> None:
    made = distill_features(make_stage(DistillFeatures(width=0.5), task, base))
    assert accuracy(made.module, task) >= 0.9
    assert made.findings["layers"] == "0:0, 4:4"
    alone = distill(make_stage(Distill(width=0.5), task, base)).module
    seen = unexplained(made.module, base, "4", task)
    assert seen < 0.8 * unexplained(alone, base, "4", task)


def test_adapters_and_hooks_are_gone_and_the_teacher_is_as_it_was(
    task: Task, base: nn.Module
) -> None:
    before = copy.deepcopy(base)
    made = distill_features(make_stage(DistillFeatures(width=0.5), task, base)).module
    assert made.state_dict().keys() == build_tiny(0.5).state_dict().keys()
    assert not any(row._forward_hooks for row in [*made.modules(), *base.modules()])
    assert same_weights(base, before)


def test_attention_takes_convolutions_only_and_teaches(task: Task, base: nn.Module) -> None:
    spec = DistillFeatures(width=0.5, feature_loss="attention", feature_weight=10.0)
    made = distill_features(make_stage(spec, task, base))
    assert made.findings["layers"] == "0:0"
    assert accuracy(made.module, task) >= 0.9


def test_layers_of_other_names_and_sizes_are_paired(base: nn.Module) -> None:
    def build_student() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2), nn.Flatten(), nn.Linear(72, 24), nn.Linear(24, CLASSES)
        )

    task = a_task(build_student=build_student)
    spec = DistillFeatures(is_task_student=True, layers=("0:2", "2:4"))
    made = distill_features(make_stage(spec, task, base))
    assert made.findings["layers"] == "0:2, 2:4"
    assert accuracy(made.module, task) >= 0.9


def test_maps_are_averaged_to_the_coarser_and_vectors_stay() -> None:
    fine = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    one, other = match_places(fine, torch.zeros(1, 3, 1, 1))
    assert one.tolist() == [[[[4.0]]]]
    assert other.shape == (1, 3, 1, 1)
    line, _ = match_places(torch.tensor([[[1.0, 3.0]]]), torch.zeros(1, 2, 1))
    assert line.tolist() == [[[2.0]]]
    vector, _ = match_places(torch.ones(2, 5), torch.ones(2, 7))
    assert vector.shape == (2, 5)


def test_an_adapter_gives_the_teachers_channels(task: Task, base: nn.Module) -> None:
    student = build_tiny(0.5)
    for row in pair_layers(student, base, DistillFeatures(), task):
        with torch.no_grad():
            own = row.adapter(features_of(student, row.student, task))
        assert own.shape == features_of(base, row.teacher, task).shape


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (DistillFeatures(layers=("conv",)), "the student has no layer 'conv'; it has 0, 1"),
        (DistillFeatures(layers=("0:conv",)), "the teacher has no layer 'conv'"),
        (DistillFeatures(layers=("0:4",)), r"'0:4' give \[16, 6, 6\] and \[32\]"),
        (DistillFeatures(layers=("4",), feature_loss="attention"), "attention needs maps"),
    ],
)
def test_layers_that_cannot_be_compared_are_named(
    task: Task, base: nn.Module, spec: DistillFeatures, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        pair_layers(build_tiny(), base, spec, task)


def test_networks_without_a_common_layer_need_names(task: Task, base: nn.Module) -> None:
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    with pytest.raises(ConfigError, match="name pairs in layers"):
        pair_layers(student, base, DistillFeatures(), task)


def test_features_are_not_kept_after_watching(base: nn.Module) -> None:
    with watch(base, ["0"]) as seen:
        pass
    predict(base, np.zeros((1, 1, 8, 8), np.float32))
    assert not seen
