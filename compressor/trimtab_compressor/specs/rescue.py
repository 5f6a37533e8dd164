"""What makes a float file easier to quantize: float file -> float file, before any quantizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from trimtab_compressor.specs.base import FileSpec, Need


@dataclass(frozen=True, kw_only=True)
class Equalize(FileSpec):
    """Cross-layer equalization (Nagel et al., 2019): the network's function stays.

    Factors move between layers until their channels have equal ranges.

    Args:
        clip: Layers with a ReLU6 between them: "leave" them out, which is exact for every input, or
            move factors as far as no calibration value meets the clip, with a margin ("measured").
        margin: By how much a new sample may exceed the largest calibration value, at least 1.
    """

    pass_name: ClassVar[str] = "equalize"  # noqa: S105 - a name, not a password
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})
    clip: Literal["leave", "measured"] = "measured"
    margin: float = 1.25

    def __post_init__(self) -> None:
        """Refuse a margin that would clip what was seen."""
        self.check(self.margin >= 1, "margin", "give at least 1")

    @property
    def is_exact(self) -> bool:  # type: ignore[override]  # depends on a parameter here
        """Whether it holds for every input, not only for those like the calibration samples."""
        return self.clip == "leave"


@dataclass(frozen=True, kw_only=True)
class GridSpec(FileSpec):
    """A pass that has to know how the quantizer after it will round weights.

    Args:
        bits: Of a weight.
        is_per_channel: As of the quantizer.
        is_range_reduced: As of the quantizer; ONNX only.
        excluded: Names of layers that the quantizer will leave in float.
        samples: Calibration samples to use at most; they run once per layer.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})
    bits: int = 8
    is_per_channel: bool = True
    is_range_reduced: bool = False
    excluded: tuple[str, ...] = ()
    samples: int = 64

    def __post_init__(self) -> None:
        """Refuse grids that no quantizer has."""
        self.check(2 <= self.bits <= 8, "bits", "give 2 to 8")
        self.check(self.samples >= 1, "samples", "give at least 1")


@dataclass(frozen=True, kw_only=True)
class CorrectBias(GridSpec):
    """Take the mean error that rounded weights will make out of the biases (Nagel et al., 2019).

    Args:
        is_sequential: Measure each layer behind those that are already rounded and corrected.
    """

    pass_name: ClassVar[str] = "correct_bias"  # noqa: S105 - a name, not a password
    is_sequential: bool = True


@dataclass(frozen=True, kw_only=True)
class RoundWeights(GridSpec):
    """Learn for each weight whether to round up or down (AdaRound, Nagel et al., 2020).

    Args:
        iterations: Of the learning, per layer.
        rows: Places of a layer's input to learn from, at most.
        learning_rate: Of Adam.
        is_bias_corrected: Also take the mean error that is left out of each bias.
    """

    pass_name: ClassVar[str] = "round_weights"  # noqa: S105 - a name, not a password
    iterations: int = 300
    rows: int = 2048
    learning_rate: float = 2e-2
    is_bias_corrected: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot learn."""
        super().__post_init__()
        self.check(self.iterations >= 1, "iterations", "give at least 1")
        self.check(self.rows >= 1, "rows", "give at least 1")
        self.check(self.learning_rate > 0, "learning_rate", "it must be above 0")
