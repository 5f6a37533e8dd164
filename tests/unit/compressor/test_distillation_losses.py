"""Losses of distillation, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trimtab_compressor.passes.distillation_losses import (
    attention_loss,
    dkd_loss,
    hard_loss,
    join_answers,
    map_loss,
    soft_loss,
    warm_up,
)


def logits_of(*rows: list[float]) -> Tensor:
    """Logits whose softmax at temperature 1 is given."""
    return torch.log(torch.tensor(rows))


def test_the_soft_loss_of_two_known_answers() -> None:
    teacher, student = logits_of([0.5, 0.5]), logits_of([0.25, 0.75])
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert float(soft_loss(student, teacher, 1.0)) == pytest.approx(by_hand)


def test_the_soft_loss_is_a_mean_over_the_batch_and_least_where_both_agree() -> None:
    teacher = logits_of([0.5, 0.5], [0.1, 0.9])
    student = logits_of([0.25, 0.75], [0.1, 0.9])
    one = soft_loss(student[:1], teacher[:1], 1.0)
    assert float(soft_loss(student, teacher, 1.0)) == pytest.approx(float(one) / 2)
    assert float(soft_loss(teacher, teacher, 3.0)) == pytest.approx(0.0, abs=1e-7)


def test_the_temperature_softens_both_and_its_square_scales() -> None:
    # logits 2·log p at temperature 2 are softened to p
    teacher, student = 2 * logits_of([0.5, 0.5]), 2 * logits_of([0.25, 0.75])
    cold = soft_loss(student / 2, teacher / 2, 1.0)
    assert float(soft_loss(student, teacher, 2.0)) == pytest.approx(4 * float(cold))


def test_the_hard_loss_takes_the_teachers_first_class_for_the_truth() -> None:
    student = logits_of([0.2, 0.5, 0.3])
    assert float(hard_loss(student, logits_of([0.1, 0.2, 0.7]))) == pytest.approx(-math.log(0.3))


def test_dkd_of_known_answers() -> None:
    teacher, student = logits_of([0.6, 0.3, 0.1]), logits_of([0.5, 0.25, 0.25])
    target = 0.6 * math.log(0.6 / 0.5) + 0.4 * math.log(0.4 / 0.5)
    others = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    labels = torch.tensor([0])
    found = dkd_loss(student, teacher, labels, temperature=1.0, alpha=2.0, beta=8.0)
    assert float(found) == pytest.approx(2 * target + 8 * others)


def test_dkd_at_a_temperature_is_scaled_by_its_square() -> None:
    teacher, student = logits_of([0.6, 0.3, 0.1]), logits_of([0.5, 0.25, 0.25])
    labels = torch.tensor([1])
    cold = dkd_loss(student, teacher, labels, temperature=1.0, alpha=1.0, beta=2.0)
    warm = dkd_loss(4 * student, 4 * teacher, labels, temperature=4.0, alpha=1.0, beta=2.0)
    assert float(warm) == pytest.approx(16 * float(cold), rel=1e-5)


def test_dkd_with_the_teachers_doubt_as_beta_is_the_soft_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    for label in range(5):
        teacher = 3 * torch.randn(1, 5, generator=generator)
        student = 3 * torch.randn(1, 5, generator=generator)
        doubt = 1 - float(torch.softmax(teacher / 2, dim=1)[0, label])
        found = dkd_loss(
            student, teacher, torch.tensor([label]), temperature=2.0, alpha=1.0, beta=doubt
        )
        assert float(found) == pytest.approx(float(soft_loss(student, teacher, 2.0)), rel=1e-4)


def test_dkd_of_very_sure_answers_stays_finite_and_has_a_gradient() -> None:
    student = torch.tensor([[90.0, -90.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-90.0, 90.0, 0.0]])
    found = dkd_loss(student, teacher, torch.tensor([1]), temperature=1.0, alpha=1.0, beta=8.0)
    found.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(found)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().sum() > 0


def test_a_warm_up_rises_in_a_line_and_stays() -> None:
    assert [warm_up(row, 4) for row in (0, 1, 2, 4, 9)] == [0.0, 0.25, 0.5, 1.0, 1.0]
    assert warm_up(0, 0) == 1.0


def test_an_ensemble_answers_with_the_mean_of_the_softened_answers() -> None:
    first, second = 2 * logits_of([0.9, 0.1]), 2 * logits_of([0.3, 0.7])
    joined = join_answers([first, second], temperature=2.0)
    assert torch.softmax(joined / 2, dim=1)[0].tolist() == pytest.approx([0.6, 0.4])
    assert torch.equal(join_answers([first], temperature=2.0), first)


def test_the_map_loss_is_one_for_nothing_and_zero_for_the_same() -> None:
    teacher = torch.tensor([[3.0, 4.0]])
    assert float(map_loss(torch.zeros(1, 2), teacher)) == pytest.approx(1.0)
    assert float(map_loss(teacher, teacher)) == 0.0
    assert float(map_loss(torch.tensor([[3.0, 3.0]]), teacher)) == pytest.approx(1 / 25)
    assert float(map_loss(torch.zeros(1, 2), torch.zeros(1, 2))) == 0.0


def test_attention_compares_places_and_not_channels() -> None:
    left = torch.tensor([[[[2.0, 0.0]], [[0.0, 0.0]]]])  # (1, 2 channels, 1, 2)
    right = torch.tensor([[[[0.0, 5.0]]]])  # (1, 1 channel, 1, 2)
    assert float(attention_loss(left, right)) == pytest.approx(2.0)
    assert float(attention_loss(left, torch.tensor([[[[7.0, 0.0]]]]))) == pytest.approx(0.0)
    # 3² and 4² make (0.490, 0.872); against (1, 0): 2 · (1 - 0.490)
    mixed = torch.tensor([[[[3.0, 4.0]]]])
    by_hand = 2 * (1 - 9 / math.hypot(9, 16))
    assert float(attention_loss(left, mixed)) == pytest.approx(by_hand)


def test_hard_labels_of_a_sure_teacher_are_the_soft_loss_at_temperature_one() -> None:
    teacher, student = torch.tensor([[60.0, 0.0, 0.0]]), logits_of([0.2, 0.5, 0.3])
    assert float(soft_loss(student, teacher, 1.0)) == pytest.approx(
        float(hard_loss(student, teacher)), rel=1e-5
    )
    assert float(hard_loss(student, teacher)) == float(cross_entropy(student, torch.tensor([0])))
