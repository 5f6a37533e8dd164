"""Distillation: a smaller network learns the base network's soft answers, and the labels.

loss = (1 - w) · CE(student, labels) + w · T² · KL(softmax(teacher / T) ‖ softmax(student / T))
(Hinton, Vinyals, Dean 2015). The teacher's answers are computed once; there is no augmentation, so
they do not change between epochs.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from trimtab_compressor.network import new_network
from trimtab_compressor.passes.stage import Network, NetworkStage
from trimtab_compressor.passes.train import label_loss, schedule
from trimtab_compressor.passes.training_loop import Loss, predict, run_epochs
from trimtab_compressor.specs.distillation import Distill


def distill(stage: NetworkStage[Distill]) -> Network:
    """Teach a new student of the given width, or the network as it came.

    Raises:
        ConfigError: `build_model` cannot make that width.
        ModelError: Training diverged.
    """
    spec, task, training = stage.spec, stage.task, stage.task.training
    student, width = stage.model, stage.width
    if spec.width is not None:
        student, width = new_network(task, spec.width), spec.width
    loss = soft_loss(spec, predict(stage.base, task.train.inputs), label_loss(task))
    plan = schedule(training, training.distill_epochs, training.learning_rate)
    run_epochs(student, task.train.inputs, loss, plan)
    return Network(student, width)


def soft_loss(spec: Distill, teacher_logits: Tensor, hard: Loss) -> Loss:
    """The mixed loss, with the teacher's logits of shape (n, classes)."""
    scale, weight = spec.temperature, spec.soft_weight
    targets = log_softmax(teacher_logits / scale, dim=1)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        soft = kl_div(
            log_softmax(logits / scale, dim=1),
            targets[rows],
            reduction="batchmean",
            log_target=True,
        )
        return weight * scale**2 * soft + (1 - weight) * hard(logits, rows)

    return loss
