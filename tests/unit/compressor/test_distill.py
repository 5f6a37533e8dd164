"""Distillation by answers, on a task that learns in a second."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from support.compressor_rig import CLASSES, a_task, build_tiny, trained_tiny
from support.networks import Misguided, accuracy, make_stage, misguided_share, same_weights
from trimtab_compressor.checkpoint import load_checkpoint, save_checkpoint
from trimtab_compressor.macs import count_parameters
from trimtab_compressor.network import new_network
from trimtab_compressor.passes.distill import (
    DecoupledLoss,
    distill,
    distill_decoupled,
    distill_hard,
    mix_soft,
)
from trimtab_compressor.passes.distill_teachers import answer_as_one, check_answers
from trimtab_compressor.passes.train import label_loss, schedule
from trimtab_compressor.passes.training_loop import predict, run_epochs
from trimtab_compressor.specs.distillation import (
    Distill,
    DistillDecoupled,
    DistillFeatures,
    DistillHard,
)
from trimtab_compressor.task import STUDENT_WIDTH, Task, Training
from trimtab_protocol.errors import ConfigError


@pytest.fixture(scope="module")
def task() -> Task:
    return a_task()


@pytest.fixture(scope="module")
def base(task: Task) -> nn.Module:
    return trained_tiny(task)


def build_dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def test_a_new_student_has_its_width_and_learns(task: Task, base: nn.Module) -> None:
    made = distill(make_stage(Distill(width=0.5), task, base))
    assert count_parameters(made.module) == count_parameters(build_tiny(0.5))
    assert made.width == 0.5
    assert accuracy(made.module, task) >= 0.9
    assert made.findings == {"teacher_train_accuracy": pytest.approx(1.0, abs=0.05)}


def test_by_default_the_network_of_the_earlier_passes_is_taught(
    task: Task, base: nn.Module
) -> None:
    stage = make_stage(Distill(), task, base)
    assert distill(stage).module is stage.model


def test_a_student_of_another_design_comes_from_the_task_and_back_from_its_checkpoint(
    base: nn.Module, tmp_path: Path
) -> None:
    task = a_task(build_student=build_dense)
    made = distill(make_stage(Distill(is_task_student=True), task, base))
    assert made.width == STUDENT_WIDTH
    assert accuracy(made.module, task) >= 0.9
    save_checkpoint(made.module, made.width, tmp_path / "net.pt")
    again, width = load_checkpoint(task, tmp_path / "net.pt")
    assert width == STUDENT_WIDTH
    assert same_weights(again, made.module)


def test_a_task_without_a_student_says_so(task: Task, base: nn.Module) -> None:
    with pytest.raises(ConfigError, match="task bars has no build_student; give it one"):
        distill(make_stage(Distill(is_task_student=True), task, base))


def test_a_student_that_fails_is_named(base: nn.Module) -> None:
    task = a_task(build_student=lambda: nn.Sequential(nn.Flatten(), nn.Linear(7, CLASSES)))
    with pytest.raises(ConfigError, match=r"build_student\(\) or its network raised RuntimeError"):
        distill(make_stage(Distill(is_task_student=True), task, base))


def test_hard_labels_without_a_teacher_are_training_alone(task: Task, base: nn.Module) -> None:
    made = distill_hard(make_stage(DistillHard(width=0.5, teacher_weight=0.0), task, base))
    alone = new_network(task, 0.5)
    training = task.training
    plan = schedule(training, training.distill_epochs, training.learning_rate)
    run_epochs(alone, task.train.inputs, label_loss(task), plan)
    assert same_weights(alone, made.module)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_student_follows_its_teacher_as_far_as_its_weight_says(
    task: Task, base: nn.Module, weight: float
) -> None:
    teacher = Misguided(base)
    stage = replace(
        make_stage(DistillHard(teacher_weight=weight), task, build_tiny()), base=teacher
    )
    assert misguided_share(distill_hard(stage).module, task) == pytest.approx(weight, abs=0.1)
    soft = replace(make_stage(Distill(soft_weight=weight), task, build_tiny()), base=teacher)
    assert misguided_share(distill(soft).module, task) == pytest.approx(weight, abs=0.1)


def test_a_student_learns_from_decoupled_answers(task: Task, base: nn.Module) -> None:
    made = distill_decoupled(make_stage(DistillDecoupled(width=0.5), task, base))
    assert accuracy(made.module, task) >= 0.9


def test_the_other_classes_count_more_and_more_over_the_warm_up(task: Task) -> None:
    answers = torch.randn(480, CLASSES, generator=torch.Generator().manual_seed(0))
    logits, rows = torch.randn(480, CLASSES), torch.arange(480)
    spec = DistillDecoupled(beta=4.0, warm_up_epochs=2.0)
    loss = DecoupledLoss(spec, task, answers)
    values = [float(loss(logits, rows)) for _ in range(4)]  # each call is an epoch
    without = DecoupledLoss(replace(spec, beta=0.0), task, answers)
    whole = DecoupledLoss(replace(spec, warm_up_epochs=0.0), task, answers)
    assert values[0] == pytest.approx(float(without(logits, rows)))
    assert values[1] == pytest.approx((values[0] + values[2]) / 2)
    assert values[2] == values[3] == pytest.approx(float(whole(logits, rows)))


def test_the_soft_share_mixes_answers_and_labels(task: Task) -> None:
    answers = torch.zeros(480, CLASSES)  # every class alike
    rows = torch.arange(4)
    logits = torch.zeros(4, CLASSES)
    assert float(mix_soft(task, answers, 2.0, 1.0)(logits, rows)) == pytest.approx(0.0, abs=1e-6)
    mixed = mix_soft(task, answers, 2.0, 0.25)(logits, rows)
    assert float(mixed) == pytest.approx(0.75 * float(torch.tensor(CLASSES).log()))


class Workshop:
    """Gives untrained networks and notes what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, float]] = []

    def train_base(self, task: Task, width: float) -> nn.Module:
        self.asked.append((task.training.seed, width))
        return new_network(task, width)


def test_many_seeds_answer_as_one(base: nn.Module) -> None:
    task = a_task(training=Training(seed=5))
    workshop = Workshop()
    stage = replace(make_stage(Distill(), task, base), train_base=workshop.train_base)
    found = answer_as_one(stage, Distill(teacher_seeds=3), temperature=2.0)
    assert workshop.asked == [(6, 1.0), (7, 1.0)]
    others = [new_network(replace(task, training=Training(seed=seed)), 1.0) for seed in (6, 7)]
    softened = [
        torch.softmax(predict(row, task.train.inputs) / 2, dim=1) for row in (base, *others)
    ]
    expected = torch.stack(softened).mean(dim=0)
    assert torch.allclose(torch.softmax(found / 2, dim=1), expected, atol=1e-5)


def test_a_teacher_of_another_width_is_trained_as_the_base_is(task: Task, base: nn.Module) -> None:
    workshop = Workshop()
    stage = replace(make_stage(Distill(), task, base), train_base=workshop.train_base)
    answer_as_one(stage, Distill(teacher_width=2.0, teacher_seeds=2), temperature=1.0)
    assert workshop.asked == [(0, 2.0), (1, 2.0)]


def test_without_a_workshop_a_teacher_is_trained_at_once(task: Task, base: nn.Module) -> None:
    stage = make_stage(Distill(), task, base)
    answers = answer_as_one(stage, Distill(teacher_width=0.5), temperature=1.0)
    right = (answers.argmax(dim=1).numpy() == task.train.labels).mean()
    assert right >= 0.9


def test_the_teacher_is_left_as_it_was(task: Task, base: nn.Module) -> None:
    before = copy.deepcopy(base)
    distill(make_stage(Distill(width=0.5), task, base))
    assert same_weights(base, before)


def test_a_teacher_of_other_classes_is_refused(task: Task) -> None:
    with pytest.raises(
        ConfigError, match=r"teacher x gives \[5\] for each sample, the task has 3 classes"
    ):
        check_answers("x", torch.zeros(480, 5), task)


def test_a_teacher_that_answers_nan_is_refused_with_how_often(task: Task) -> None:
    answers = torch.zeros(480, CLASSES)
    answers[[3, 5], 1] = float("nan")
    with pytest.raises(ConfigError, match="teacher x answers 2 of 480 training samples with NaN"):
        check_answers("x", answers, task)


def test_probabilities_become_logits_and_logits_stay(task: Task) -> None:
    logits = torch.randn(480, CLASSES, generator=torch.Generator().manual_seed(0))
    assert torch.equal(check_answers("x", logits, task), logits)
    found = check_answers("x", torch.softmax(logits, dim=1), task)
    expected = torch.softmax(logits / 3, dim=1)
    assert torch.allclose(torch.softmax(found / 3, dim=1), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Distill(width=0.5, is_task_student=True), "width is 0.5; leave it out"),
        (lambda: Distill(width=0.0), "width is 0.0; it must be above 0"),
        (lambda: Distill(teacher_width=0.0), "teacher_width"),
        (lambda: Distill(teacher_seeds=0), "teacher_seeds is 0; give at least 1"),
        (lambda: Distill(teacher_files=("a.onnx",), teacher_seeds=2), "leave out teacher_seeds"),
        (lambda: Distill(teacher_files=("a.onnx",), teacher_width=2.0), "leave out teacher_seeds"),
        (lambda: Distill(temperature=0.0), "temperature"),
        (lambda: Distill(soft_weight=1.5), "soft_weight"),
        (lambda: DistillHard(teacher_weight=-0.1), "distill_hard: teacher_weight is -0.1"),
        (lambda: DistillDecoupled(temperature=-1.0), "distill_dkd: temperature"),
        (lambda: DistillDecoupled(alpha=-1.0), "alpha is -1.0; it cannot be negative"),
        (lambda: DistillDecoupled(beta=-1.0), "beta is -1.0"),
        (lambda: DistillDecoupled(alpha=0.0, beta=0.0), "nothing is taught"),
        (lambda: DistillDecoupled(warm_up_epochs=-1.0), "warm_up_epochs"),
        (lambda: DistillFeatures(feature_weight=0.0), "else use distill"),
        (lambda: DistillFeatures(temperature=0.0), "temperature"),
        (lambda: DistillFeatures(soft_weight=2.0), "soft_weight"),
        (lambda: DistillFeatures(layers=("a:b:c",)), "layers"),
        (lambda: DistillFeatures(layers=(":b",)), "layers"),
    ],
)
def test_specs_refuse_what_cannot_teach(build: type, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build()
