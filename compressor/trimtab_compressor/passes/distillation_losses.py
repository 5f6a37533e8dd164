"""What a student is told by its teacher: losses as plain functions of tensors.

Rules:
    1. Logits in, scalar out, mean over the batch; nothing here knows a task, a pass or an optimizer,
       so that every pass that trains can use them (quantization-aware training does).
    2. Teachers get no gradient; whoever calls gives their answers without one.
    3. Losses of softened answers are multiplied by T², so that their gradients keep their size when
       the temperature T changes (Hinton et al. 2015, section 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, mse_loss, normalize


def hard_loss(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy against the class that the teacher finds most likely.

    Source: Touvron et al., "Training data-efficient image transformers", 2021, section 4
    ("hard-label distillation").

    Args:
        logits: Of the student, (b, classes).
        teacher_logits: (b, classes).
    """
    return cross_entropy(logits, teacher_logits.argmax(dim=1))


def soft_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)).

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015.

    Args:
        logits: Of the student, (b, classes).
        teacher_logits: (b, classes).
        temperature: Above 0; higher shows more of what the teacher thinks of the wrong classes.
    """
    divergence = kl_div(
        log_softmax(logits / temperature, dim=1),
        log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * divergence


def dkd_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    alpha: float,
    beta: float,
) -> Tensor:
    """T² · (α · TCKD + β · NCKD): the soft loss, taken apart at the true class.

    With p the softened probability of the true class, and q the softened probabilities of the other
    classes among themselves:
        TCKD = KL([p, 1 - p] of the teacher ‖ of the student): how hard the sample is;
        NCKD = KL(q of the teacher ‖ of the student): what the wrong classes have in common.
    The soft loss is TCKD + (1 - p of the teacher) · NCKD: a sure teacher hardly tells its q. Here β
    weighs it alike for every sample.

    Source: Zhao, Cui, Song, Qiu, Liang, "Decoupled knowledge distillation", CVPR 2022, equations 4
    to 8.

    Args:
        logits: Of the student, (b, classes).
        teacher_logits: (b, classes).
        labels: The true classes, (b,).
        temperature: Above 0.
        alpha: Weight of the true class's part; the paper keeps 1.
        beta: Weight of the other classes' part; the paper uses 1 to 10, by how sure the teacher is.
    """
    student = log_softmax(logits / temperature, dim=1)
    teacher = log_softmax(teacher_logits / temperature, dim=1)
    target = kl_div(
        _is_true_class(student, labels),
        _is_true_class(teacher, labels),
        reduction="batchmean",
        log_target=True,
    )
    others = kl_div(
        log_softmax(_without(student, labels), dim=1),
        log_softmax(_without(teacher, labels), dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * (alpha * target + beta * others)


def _is_true_class(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Log of [p, 1 - p]: (b, classes) -> (b, 2)."""
    true = log_probabilities.gather(1, labels[:, None])  # (b, 1)
    rest = _without(log_probabilities, labels).logsumexp(dim=1, keepdim=True)  # (b, 1)
    return torch.cat([true, rest], dim=1)


def _without(values: Tensor, labels: Tensor) -> Tensor:
    """Leave the true class out: (b, classes) -> (b, classes - 1)."""
    keep = torch.ones_like(values, dtype=torch.bool).scatter(1, labels[:, None], False)
    return values[keep].view(len(values), -1)


def warm_up(epoch: float, epochs: float) -> float:
    """The share of a loss that counts after `epoch` epochs: linear from 0 to 1 over `epochs`.

    A student that knows nothing yet is far from every q, and a large β would throw it about; the
    authors of DKD start slowly for that reason.
    """
    return 1.0 if epochs <= 0 else min(1.0, max(0.0, epoch / epochs))


def join_answers(answers: Sequence[Tensor], temperature: float) -> Tensor:
    """One teacher out of many: logits whose softened answer is the mean of the softened answers.

    T · log(mean over k of softmax(teacher_k / T)). The result is meant for losses of the same
    temperature: softmax(result / T) is the mean exactly.

    Source: Hinton et al. 2015, section 5.3 (arithmetic mean of an ensemble's distributions).

    Args:
        answers: Logits of each teacher, all (n, classes).
        temperature: Of the losses that will use the result.
    """
    if len(answers) == 1:
        return answers[0]
    softened = torch.stack([log_softmax(row / temperature, dim=1) for row in answers])  # (k, n, c)
    return temperature * (softened.logsumexp(dim=0) - math.log(len(answers)))


def map_loss(adapted: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the student's adapted features to the teacher's, per unit of their size.

    ‖r(student) - teacher‖² / ‖teacher‖². FitNets has ½ ‖·‖² without the division; with it, one weight
    serves layers of any scale, and 1 is what features of zero would cost.

    Source: Romero et al., "FitNets: hints for thin deep nets", ICLR 2015, equation 3.

    Args:
        adapted: The student's features after the adapter, of the teacher's shape.
        teacher: (b, ...).
    """
    return mse_loss(adapted, teacher) / teacher.square().mean().clamp_min(1e-12)


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance between where student and teacher look.

    ‖Q_s / ‖Q_s‖ - Q_t / ‖Q_t‖‖², Q = the sum over channels of the squared features, as one vector per
    sample. Channels need not agree, so no adapter is needed. The paper takes the distance itself,
    whose gradient has no bound where both agree; its square has.

    Source: Zagoruyko, Komodakis, "Paying more attention to attention", ICLR 2017, equation 2.

    Args:
        student: (b, channels, h, w).
        teacher: (b, other channels, h, w).
    """
    distance = _attention(student) - _attention(teacher)  # (b, h · w)
    return distance.square().sum(dim=1).mean()


def _attention(features: Tensor) -> Tensor:
    return normalize(features.square().sum(dim=1).flatten(1), dim=1)
