"""Training with quantization in the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from trimtab_compressor.specs.base import Need, NetworkSpec

ActivationRanges = Literal["learned", "moving_average"]
Teacher = Literal["none", "base"]
TeacherLoss = Literal["soft", "decoupled"]


@dataclass(frozen=True, kw_only=True)
class QuantizeAware(NetworkSpec):
    """Train while weights and activations are rounded, so that a static quantization after it costs nothing.

    The scheme has the words of `QuantizeStatic` and should be that pass's own in the same recipe.

    Args:
        epochs: Over the training data.
        learning_rate_factor: Of the task's fine_tune_learning_rate.
        is_symmetric: Activations around zero; else with a zero point of their own.
        is_per_channel: One weight scale per output channel.
        is_range_reduced: Weights keep to 7 bits.
        is_weight_unsigned: Weights have a zero point of their own.
        activation_ranges: "learned" by gradient (LSQ, Esser et al., 2020), or a "moving_average" of
            what was seen (Jacob et al., 2018).
        freeze_from: Share of the training after which BatchNorm statistics and moving averages stay;
            0 to 1. A file has fixed ones, and the weights need time to settle on them.
        teacher: "base": the base network's answers teach along; "none": labels alone.
        teacher_loss: "soft" (Hinton et al., 2015) or "decoupled" (DKD, Zhao et al., 2022).
        temperature: Softens both answers.
        teacher_weight: soft: share of the teacher's loss, the rest is the labels', 0 to 1. decoupled:
            weight of what the teacher thinks of the wrong classes (beta), beside the labels' loss.
    """

    pass_name: ClassVar[str] = "quantize_aware"  # noqa: S105 - a name, not a password
    needs: ClassVar[frozenset[Need]] = NetworkSpec.needs | {Need.TRAINING_LABELS, Need.CALIBRATION}
    epochs: int = 2
    learning_rate_factor: float = 1.0
    is_symmetric: bool = False
    is_per_channel: bool = True
    is_range_reduced: bool = False
    is_weight_unsigned: bool = False
    activation_ranges: ActivationRanges = "learned"
    freeze_from: float = 0.7
    teacher: Teacher = "none"
    teacher_loss: TeacherLoss = "soft"
    temperature: float = 4.0
    teacher_weight: float = 0.9

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        self.check(self.epochs >= 1, "epochs", "give at least 1")
        self.check(self.learning_rate_factor > 0, "learning_rate_factor", "it must be above 0")
        self.check(
            not (self.is_weight_unsigned and (self.is_symmetric or self.is_range_reduced)),
            "is_weight_unsigned",
            "leave out is_symmetric and is_range_reduced: unsigned weights go with neither",
        )
        self.check(0 <= self.freeze_from <= 1, "freeze_from", "it must lie between 0 and 1")
        self.check(self.temperature > 0, "temperature", "it must be above 0")
        self.check(self.teacher_weight >= 0, "teacher_weight", "it cannot be negative")
        self.check(
            self.teacher_loss == "decoupled" or self.teacher_weight <= 1,
            "teacher_weight",
            "as a share of the soft loss it must lie between 0 and 1",
        )
