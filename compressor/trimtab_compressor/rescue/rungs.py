"""RUNGS: what is tried, in order, each on top of what helped before. Pure.

A rung is a name and a function from the best setting so far to one or more settings to try. Cheap
ones come first: the first six change numbers in the file and cost nothing on the device, float
layers cost speed and bytes, training costs hours and needs a task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from trimtab_compressor.specs.base import FileSpec, NetworkSpec
from trimtab_compressor.specs.quantization import Calibrator, QuantizeStatic
from trimtab_compressor.specs.quantize_aware import QuantizeAware
from trimtab_compressor.specs.rescue import CorrectBias, Equalize, RoundWeights
from trimtab_compressor.specs.training import Train

Repair = Literal["none", "correct_bias", "round_weights"]

CALIBRATORS: tuple[tuple[Calibrator, float], ...] = (
    ("percentile", 99.99),
    ("percentile", 99.9),
    ("moving_average", 100.0),
    ("entropy", 100.0),
)
MAX_FLOAT_SHARE = 0.5
"""Share of the layers that may stay in float; beyond, the file is hardly quantized."""


@dataclass(frozen=True)
class Setting:
    """One way to quantize a float file.

    Args:
        static: The quantizer, at the end of the chain.
        is_equalized: Cross-layer equalization before anything else.
        repair: What is done to biases or roundings on the quantizer's own grid.
        is_trained: The network is trained with that quantizer first.
    """

    static: QuantizeStatic
    is_equalized: bool = False
    repair: Repair = "none"
    is_trained: bool = False

    def file_passes(self) -> tuple[FileSpec, ...]:
        """The chain over the float file."""
        grid = {
            "is_per_channel": self.static.is_per_channel,
            "is_range_reduced": self.static.is_range_reduced,
            "excluded": self.static.excluded,
        }
        passes: list[FileSpec] = [Equalize()] if self.is_equalized else []
        if self.repair == "correct_bias":
            passes.append(CorrectBias(**grid))  # type: ignore[arg-type]
        if self.repair == "round_weights":
            passes.append(RoundWeights(**grid))  # type: ignore[arg-type]
        return (*passes, self.static)

    def network_passes(self) -> tuple[NetworkSpec, ...]:
        """What comes before the export; none for the float file as it is."""
        if not self.is_trained:
            return ()
        scheme = QuantizeAware(
            is_symmetric=self.static.is_symmetric,
            is_per_channel=self.static.is_per_channel,
            is_range_reduced=self.static.is_range_reduced,
        )
        return (Train(), scheme)


Variants: TypeAlias = Callable[[Setting, Sequence[str]], tuple[Setting, ...]]
"""(best setting so far, layers from the most sensitive on) -> settings to try, in order."""


@dataclass(frozen=True)
class Rung:
    """One step of the ladder.

    Args:
        name: Stable, in reports.
        title: For people.
        variants: See Variants.
        needs_ranking: Whether `variants` looks at the layers' sensitivity.
    """

    name: str
    title: str
    variants: Variants
    needs_ranking: bool = False


def naive_setting(*, is_symmetric: bool = False, is_range_reduced: bool = False) -> Setting:
    """What everybody tries first: one scale per tensor, the whole range of what was seen."""
    spec = QuantizeStatic(
        is_symmetric=is_symmetric, is_range_reduced=is_range_reduced, is_per_channel=False
    )
    return Setting(static=spec)


def _as_it_is(best: Setting, ranking: Sequence[str]) -> tuple[Setting, ...]:
    del ranking
    return (best,)


def _calibrate(best: Setting, ranking: Sequence[str]) -> tuple[Setting, ...]:
    del ranking
    return tuple(
        replace(best, static=replace(best.static, calibrator=name, percentile=percentile))
        for name, percentile in CALIBRATORS
    )


def _per_channel(best: Setting, ranking: Sequence[str]) -> tuple[Setting, ...]:
    del ranking
    return (replace(best, static=replace(best.static, is_per_channel=True)),)


def _equalize(best: Setting, ranking: Sequence[str]) -> tuple[Setting, ...]:
    del ranking
    return (replace(best, is_equalized=True),)


def _correct_bias(best: Setting, ranking: Sequence[str]) -> tuple[Setting, ...]:
    del ranking
    return (replace(best, repair="correct_bias"),)


def _round_weights(best: Setting, ranking: Sequence[str]) -> tuple[Setting, ...]:
    """In the place of bias correction, which it does itself for the roundings that it learns."""
    del ranking
    return (replace(best, repair="round_weights"),)


def _keep_float(best: Setting, ranking: Sequence[str]) -> tuple[Setting, ...]:
    """One layer more each time."""
    most = int(len(ranking) * MAX_FLOAT_SHARE)
    return tuple(
        replace(best, static=replace(best.static, excluded=tuple(ranking[:count])))
        for count in range(1, most + 1)
    )


def _train(best: Setting, ranking: Sequence[str]) -> tuple[Setting, ...]:
    """Training learns ranges and roundings itself, so it begins with a plain quantizer."""
    del ranking
    plain = replace(
        best.static, is_per_channel=True, calibrator="minmax", percentile=99.99, excluded=()
    )
    return (Setting(static=plain, is_trained=True),)


RUNGS: tuple[Rung, ...] = (
    Rung("naive", "static int8, one scale per tensor", _as_it_is),
    Rung("calibrator", "another calibrator", _calibrate),
    Rung("per_channel", "one weight scale per channel", _per_channel),
    Rung("equalize", "cross-layer equalization", _equalize),
    Rung("correct_bias", "bias correction", _correct_bias),
    Rung("round_weights", "learned rounding (AdaRound)", _round_weights),
    Rung("mixed", "the most sensitive layers in float", _keep_float, needs_ranking=True),
    Rung("quantize_aware", "quantization-aware training", _train),
)
