"""Distillation by features: the student also learns what its teacher sees on the way to the answers.

loss = soft and hard labels + w · the mean over the layers of map_loss or attention_loss

FitNets trains up to the hint first and the whole student after; here both are trained at once, so
that one schedule serves. The teacher's features are computed anew for every batch: for all the
training data they would take more memory than the data itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, adaptive_avg_pool2d

from trimtab_compressor.heads import find_head, output_width
from trimtab_compressor.passes.distill import choose_student, mix_soft, note_teacher
from trimtab_compressor.passes.distill_teachers import check_answers, find_teachers
from trimtab_compressor.passes.distillation_losses import attention_loss, map_loss
from trimtab_compressor.passes.stage import Network, NetworkStage
from trimtab_compressor.passes.train import schedule
from trimtab_compressor.passes.training_loop import Loss, predict, run_epochs
from trimtab_compressor.specs.distillation import DistillFeatures
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError

Features = Mapping[str, Tensor]
"""By layer name, what it gave for the last batch."""


@dataclass(frozen=True)
class Pair:
    """Two layers that should see the same, with what makes the student's features comparable."""

    student: str
    teacher: str
    adapter: nn.Module


class Pupil(nn.Module):
    """A student with its adapters, so that one optimizer trains both; the answers are the student's."""

    def __init__(self, student: nn.Module, adapters: Sequence[nn.Module]) -> None:
        super().__init__()
        self.student = student
        self.adapters = nn.ModuleList(adapters)

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, *input shape) -> (b, classes)."""
        found: Tensor = self.student(inputs)
        return found


def distill_features(stage: NetworkStage[DistillFeatures]) -> Network:
    """Teach with answers, labels and features.

    Raises:
        ConfigError: The student cannot be made, the teacher cannot teach, or a layer does not exist
            or gives no features that can be compared.
        ModelError: Training diverged.
    """
    spec, task, training = stage.spec, stage.task, stage.task.training
    student, width = choose_student(stage, spec)
    [(name, teacher)] = find_teachers(stage, spec)
    teacher.eval()
    answers = check_answers(name, predict(teacher, task.train.inputs), task)
    pairs = pair_layers(student, teacher, spec, task)
    with (
        watch(student, [row.student for row in pairs]) as seen,
        watch(teacher, [row.teacher for row in pairs]) as shown,
    ):
        taught = mix_soft(task, answers, spec.temperature, spec.soft_weight)
        features = _feature_loss(spec, pairs, seen, shown)
        inputs = torch.from_numpy(task.train.inputs)

        def loss(logits: Tensor, rows: Tensor) -> Tensor:
            with torch.no_grad():
                teacher(inputs[rows])
            return taught(logits, rows) + spec.feature_weight * features(logits, rows)

        plan = schedule(training, training.distill_epochs, training.learning_rate)
        pupil = Pupil(student, [row.adapter for row in pairs])
        run_epochs(pupil, task.train.inputs, loss, plan)
    layers = ", ".join(f"{row.student}:{row.teacher}" for row in pairs)
    return Network(student, width, {**note_teacher(task, answers), "layers": layers})


def _feature_loss(
    spec: DistillFeatures, pairs: Sequence[Pair], seen: Features, shown: Features
) -> Loss:
    """The mean over the pairs, of what was last seen."""
    compare = attention_loss if spec.feature_loss == "attention" else map_loss

    def loss(_logits: Tensor, _rows: Tensor) -> Tensor:
        parts = [
            compare(*match_places(row.adapter(seen[row.student]), shown[row.teacher]))
            for row in pairs
        ]
        return torch.stack(parts).mean()

    return loss


def pair_layers(
    student: nn.Module, teacher: nn.Module, spec: DistillFeatures, task: Task
) -> list[Pair]:
    """The layers that the spec names, or the last of each kind, with new adapters.

    Raises:
        ConfigError: A layer does not exist, or its features cannot be compared.
    """
    names = [_split(row) for row in spec.layers] or _last_layers(student, teacher, spec, task)
    for owner, model, given in (
        ("student", student, [own for own, _ in names]),
        ("teacher", teacher, [other for _, other in names]),
    ):
        _check_names(owner, model, given)
    with ExitStack() as stack:
        seen = stack.enter_context(watch(student, [own for own, _ in names]))
        shown = stack.enter_context(watch(teacher, [other for _, other in names]))
        example = torch.from_numpy(task.train.inputs[:2])
        with torch.no_grad():
            student.eval()(example)
            teacher.eval()(example)
    torch.manual_seed(task.training.seed)
    return [
        Pair(own, other, _make_adapter(spec, own, seen.get(own), other, shown.get(other)))
        for own, other in names
    ]


def match_places(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average the finer of two maps to the coarser: (b, c, h, w) or (b, c, t); others as they are."""
    if student.ndim not in (3, 4) or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    length = min(student.shape[-1], teacher.shape[-1])
    if student.ndim == 3:
        return adaptive_avg_pool1d(student, length), adaptive_avg_pool1d(teacher, length)
    size = (min(student.shape[2], teacher.shape[2]), length)
    return adaptive_avg_pool2d(student, size), adaptive_avg_pool2d(teacher, size)


@contextmanager
def watch(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Keep what these layers give for the last batch, as long as the context is open."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_layer: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                found[name] = output

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in set(names)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _make_adapter(
    spec: DistillFeatures, own: str, student: Tensor | None, other: str, teacher: Tensor | None
) -> nn.Module:
    """A 1 × 1 convolution over maps, a dense layer over vectors; nothing for attention."""
    if (
        student is None
        or teacher is None
        or student.ndim != teacher.ndim
        or not 2 <= student.ndim <= 4
    ):
        raise ConfigError(
            f"distill_features: layers '{own}:{other}' give {_name_shape(student)} and "
            f"{_name_shape(teacher)}; choose layers that give maps, or vectors, in both networks"
        )
    if spec.feature_loss == "attention":
        if student.ndim != 4:
            raise ConfigError(
                f"distill_features: layer '{own}' gives {_name_shape(student)}, attention needs maps "
                "(channels, height, width); choose a convolution, or feature_loss = 'map'"
            )
        return nn.Identity()
    if student.ndim == 2:
        return nn.Linear(student.shape[1], teacher.shape[1])
    convolution = nn.Conv1d if student.ndim == 3 else nn.Conv2d
    return convolution(student.shape[1], teacher.shape[1], kernel_size=1)


def _last_layers(
    student: nn.Module, teacher: nn.Module, spec: DistillFeatures, task: Task
) -> list[tuple[str, str]]:
    """The last convolution and the last dense layer before the head that both networks have."""
    heads = {find_head(student, task.classes), find_head(teacher, task.classes)}
    theirs = dict(teacher.named_modules())
    last: dict[type, str] = {}
    for name, layer in student.named_modules():
        is_shared = type(theirs.get(name)) is type(layer)
        if name not in heads and is_shared and output_width(layer) is not None:
            last[type(layer)] = name
    names = [name for kind, name in last.items() if spec.feature_loss == "map" or kind is nn.Conv2d]
    if not names:
        raise ConfigError(
            "distill_features: student and teacher have no layer of the same name before their heads; "
            "name pairs in layers, as STUDENT'S:TEACHER'S"
        )
    return [(name, name) for name in names]


def _check_names(owner: str, model: nn.Module, names: Sequence[str]) -> None:
    known = dict(model.named_modules())
    missing = [name for name in names if name not in known]
    if missing:
        raise ConfigError(
            f"distill_features: the {owner} has no layer '{missing[0]}'; it has "
            f"{', '.join(name for name in known if name)}"
        )


def _split(row: str) -> tuple[str, str]:
    own, _, other = row.partition(":")
    return own, other or own


def _name_shape(features: Tensor | None) -> str:
    return "no tensor" if features is None else str(list(features.shape[1:]))
