"""Distillation: a network learns from another's answers, or from what it sees on the way to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from trimtab_compressor.specs.base import Need, NetworkSpec

FeatureLoss = Literal["map", "attention"]


@dataclass(frozen=True, kw_only=True)
class Lesson(NetworkSpec):
    """What all distillation passes share: who is taught. By default, what the earlier passes made.

    Args:
        width: Of a new student, made by the task's `build_model`.
        is_task_student: Teach what the task's `build_student` gives.
        teacher_width: The teacher is the task's network of this width, trained as the base is (and
            kept for the next recipe); None: the base network.
    """

    needs: ClassVar[frozenset[Need]] = NetworkSpec.needs | {Need.TRAINING_LABELS}
    width: float | None = None
    is_task_student: bool = False
    teacher_width: float | None = None

    def __post_init__(self) -> None:
        """Refuse two students, and widths of nothing."""
        self.check(self.width is None or self.width > 0, "width", "it must be above 0")
        self.check(
            self.width is None or not self.is_task_student,
            "width",
            "leave it out: is_task_student already says which student",
        )
        self.check(
            self.teacher_width is None or self.teacher_width > 0,
            "teacher_width",
            "it must be above 0",
        )

    def all_needs(self) -> frozenset[Need]:
        """Another width, or the task's student, if it is asked for."""
        widths = {self.width, self.teacher_width} - {None, 1.0}
        more = {Need.WIDTHS} if widths else set()
        return self.needs | more | ({Need.STUDENT} if self.is_task_student else set())


@dataclass(frozen=True, kw_only=True)
class AnswerLesson(Lesson):
    """A lesson that needs only the teachers' answers, so that there may be many, from anywhere.

    Args:
        teacher_seeds: So many teachers, trained alike from as many seeds, answer as one.
        teacher_files: These files answer instead, as one: .onnx, .tflite, .pt2 (torch.export), .pt
            (TorchScript, or a saved network of this task). Only files that you trust.
    """

    teacher_seeds: int = 1
    teacher_files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse files and networks at once."""
        super().__post_init__()
        self.check(self.teacher_seeds >= 1, "teacher_seeds", "give at least 1")
        self.check(
            not self.teacher_files or (self.teacher_seeds == 1 and self.teacher_width is None),
            "teacher_files",
            "leave out teacher_seeds and teacher_width: the files are the teachers",
        )

    def files(self) -> tuple[str, ...]:
        """The teachers' files."""
        return self.teacher_files


@dataclass(frozen=True, kw_only=True)
class Distill(AnswerLesson):
    """Teach with softened answers and the labels (Hinton et al., 2015).

    Args:
        temperature: Softens both answers; the loss is scaled by its square.
        soft_weight: Share of the soft loss, the rest is the labels'; 0 to 1.
    """

    pass_name: ClassVar[str] = "distill"  # noqa: S105 - a name, not a password
    revision: ClassVar[int] = 2
    temperature: float = 4.0
    soft_weight: float = 0.9

    def __post_init__(self) -> None:
        """Refuse what cannot teach."""
        super().__post_init__()
        self.check(self.temperature > 0, "temperature", "it must be above 0")
        self.check(0 <= self.soft_weight <= 1, "soft_weight", "it must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class DistillHard(AnswerLesson):
    """Teach with the teacher's first choice and the labels (Touvron et al., 2021).

    Args:
        teacher_weight: Share of the teacher's choice, the rest is the labels'; 0 to 1. With 0 the
            student learns alone: what every teacher is compared with.
    """

    pass_name: ClassVar[str] = "distill_hard"  # noqa: S105 - a name, not a password
    teacher_weight: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        super().__post_init__()
        self.check(0 <= self.teacher_weight <= 1, "teacher_weight", "it must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class DistillDecoupled(AnswerLesson):
    """Teach with the labels, and softened answers taken apart at the true class (Zhao et al., 2022).

    Args:
        temperature: Softens both answers; the loss is scaled by its square.
        alpha: Weight of how sure the teacher is of the true class.
        beta: Weight of what it thinks of the other classes.
        warm_up_epochs: Over which beta rises from 0.
    """

    pass_name: ClassVar[str] = "distill_dkd"  # noqa: S105 - a name, not a password
    temperature: float = 4.0
    alpha: float = 1.0
    beta: float = 2.0
    warm_up_epochs: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot teach."""
        super().__post_init__()
        self.check(self.temperature > 0, "temperature", "it must be above 0")
        self.check(self.alpha >= 0, "alpha", "it cannot be negative")
        self.check(self.beta >= 0, "beta", "it cannot be negative")
        self.check(self.alpha + self.beta > 0, "beta", "it and alpha are 0: nothing is taught")
        self.check(self.warm_up_epochs >= 0, "warm_up_epochs", "it cannot be negative")


@dataclass(frozen=True, kw_only=True)
class DistillFeatures(Lesson):
    """Teach with softened answers, the labels, and features on the way to them.

    Args:
        temperature: Of the softened answers.
        soft_weight: Share of the soft loss in the answers' part, the rest is the labels'.
        feature_loss: "map": the features themselves, through adapters that are trained along and
            thrown away (FitNets, Romero et al., 2015). "attention": where the features are large
            (Zagoruyko & Komodakis, 2017), for convolutions.
        feature_weight: Weight of the features' part, which is 1 for features of zero.
        layers: Names of layers as in `named_modules`, or `STUDENT'S:TEACHER'S` where they differ;
            empty for the last convolution and the last dense layer before the head.
    """

    pass_name: ClassVar[str] = "distill_features"  # noqa: S105 - a name, not a password
    temperature: float = 4.0
    soft_weight: float = 0.9
    feature_loss: FeatureLoss = "map"
    feature_weight: float = 1.0
    layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot teach."""
        super().__post_init__()
        self.check(self.temperature > 0, "temperature", "it must be above 0")
        self.check(0 <= self.soft_weight <= 1, "soft_weight", "it must lie between 0 and 1")
        self.check(
            self.feature_weight > 0, "feature_weight", "it must be above 0; else use distill"
        )
        self.check(
            all(all(row.split(":")) and row.count(":") <= 1 for row in self.layers),
            "layers",
            "give names of layers, or STUDENT'S:TEACHER'S",
        )
