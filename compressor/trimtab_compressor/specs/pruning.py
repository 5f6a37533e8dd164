"""Pruning: of weights, of channels, of whole blocks.

All three can go in steps with fine-tuning between them, and stop at the step before the accuracy
fell further than `max_drop` points below the base network's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from trimtab_compressor.grids import Precision
from trimtab_compressor.specs.base import Need, NetworkSpec

_LAYER_RATIO = re.compile(r"[^=]+=0?(0|\.\d+)")
_PATTERN = re.compile(r"([1-9]\d?):([1-9]\d?)")


@dataclass(frozen=True, kw_only=True)
class Prune(NetworkSpec):
    """What all pruning passes share.

    Args:
        max_drop: Points of test accuracy (0.5 is half a per cent) that may be lost to the base
            network; the last step that keeps it is the result. None to go all the way unjudged.
        is_fine_tuned: Whether each step is followed by the task's `fine_tune_epochs`. False when a
            later pass trains anyway.
        soft_weight: Share of the base network's soft answers in the loss of fine-tuning, 0 to 1; the
            rest is the labels'.
        temperature: Of the soft answers.
    """

    needs: ClassVar[frozenset[Need]] = NetworkSpec.needs | {Need.TRAINING_LABELS}
    max_drop: float | None = None
    is_fine_tuned: bool = True
    soft_weight: float = 0.0
    temperature: float = 4.0

    def __post_init__(self) -> None:
        """Refuse what cannot be judged or taught."""
        self.check(self.max_drop is None or self.max_drop >= 0, "max_drop", "give 0 points or more")
        self.check(0 <= self.soft_weight <= 1, "soft_weight", "it must lie between 0 and 1")
        self.check(self.temperature > 0, "temperature", "it must be above 0")


@dataclass(frozen=True, kw_only=True)
class PruneWeights(Prune):
    """Set the smallest weights to zero and hold them there: smaller compressed, not faster.

    Args:
        ratio: Share of the weights that goes, in (0, 1); left out where `pattern` says it.
        pattern: "N:M" keeps the N largest of every M weights along the inputs, such as "2:4"; before
            fine-tuning, whatever the schedule.
        steps: In how many equal steps to go; more lose less and take longer.
        scope: Whether weights are compared within each layer, or over all layers at once.
        schedule: "cubic" tightens the mask while fine-tuning, "one_shot" before it.
        is_first_pruned: Whether the first layer takes part; it is small and sees the input.
        is_last_pruned: Whether the last layer takes part.
        min_layer_weights: Layers with fewer weights are left alone; they save nothing.
    """

    pass_name: ClassVar[str] = "prune_weights"  # noqa: S105 - a name, not a password
    ratio: float | None = None
    pattern: str | None = None
    steps: int = 1
    scope: Literal["layer", "global"] = "layer"
    schedule: Literal["cubic", "one_shot"] = "cubic"
    is_first_pruned: bool = False
    is_last_pruned: bool = False
    min_layer_weights: int = 256

    def __post_init__(self) -> None:
        """Refuse ratios that leave everything or nothing, and patterns that are none."""
        super().__post_init__()
        self.check(
            (self.ratio is None) != (self.pattern is None),
            "ratio",
            "give either ratio, such as 0.8, or pattern, such as '2:4'",
        )
        self.check(self.ratio is None or 0 < self.ratio < 1, "ratio", "it must lie between 0 and 1")
        if self.pattern is not None:
            kept, of = self.kept_of()
            self.check(kept < of, "pattern", "give N:M with N below M, such as '2:4'")
            self.check(
                self.scope == "layer" and self.steps == 1,
                "pattern",
                "a pattern is one step of scope 'layer'; leave scope and steps out",
            )
        self.check(self.steps >= 1, "steps", "give at least 1")
        self.check(self.min_layer_weights >= 0, "min_layer_weights", "give 0 or more")

    def kept_of(self) -> tuple[int, int]:
        """N and M of the pattern; (1, 1) if it is no pattern."""
        found = _PATTERN.fullmatch(self.pattern or "")
        return (int(found[1]), int(found[2])) if found else (1, 1)


@dataclass(frozen=True, kw_only=True)
class PruneChannels(Prune):
    """Remove whole channels, the least important first, then fine-tune: smaller and faster.

    Args:
        ratio: Share of the channels that goes, in (0, 1): of every layer, or of all together.
        layer_ratios: Other ratios for single layers, such as ("features.3=0.7", "fc1=0"); 0 leaves a
            layer alone.
        steps: In how many equal steps to go; more lose less and take longer.
        scope: Whether channels are compared within each layer, or over all layers at once.
        importance: "magnitude": norm of the weights; "bn_scale": of batch normalisation's scale;
            "taylor": what the loss would change by, from the gradients of training samples.
        sparse_epochs: With "bn_scale": epochs of training before it that press scales to zero.
        sparse_weight: How hard they press.
        round_to: Channel counts become multiples of this. None for the grid of `device_class`.
        device_class: What the model is for, such as "raspberry-pi-5-model-b-rev-1-0-t4".
        precision: Of the weights after all passes; grids differ by it.
    """

    pass_name: ClassVar[str] = "prune_channels"  # noqa: S105 - a name, not a password
    revision: ClassVar[int] = 2
    ratio: float
    layer_ratios: tuple[str, ...] = ()
    steps: int = 1
    scope: Literal["layer", "global"] = "layer"
    importance: Literal["magnitude", "bn_scale", "taylor"] = "magnitude"
    sparse_epochs: int = 0
    sparse_weight: float = 1e-4
    round_to: int | None = None
    device_class: str | None = None
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        """Refuse ratios that leave everything or nothing."""
        super().__post_init__()
        self.check(0 < self.ratio < 1, "ratio", "it must lie between 0 and 1")
        self.check(self.steps >= 1, "steps", "give at least 1")
        self.check(self.round_to is None or self.round_to >= 1, "round_to", "give at least 1")
        self.check(self.sparse_epochs >= 0, "sparse_epochs", "give 0 or more")
        self.check(
            self.sparse_epochs == 0 or self.importance == "bn_scale",
            "sparse_epochs",
            "it belongs to importance 'bn_scale'; leave it out",
        )
        self.check(self.sparse_weight > 0, "sparse_weight", "it must be above 0")
        self.check(
            all(_LAYER_RATIO.fullmatch(row) for row in self.layer_ratios),
            "layer_ratios",
            "give texts such as 'features.3=0.7', the ratio from 0 to below 1",
        )

    def ratio_by_layer(self) -> dict[str, float]:
        """The layers with a ratio of their own."""
        pairs = (row.rsplit("=", 1) for row in self.layer_ratios)
        return {name: float(ratio) for name, ratio in pairs}


@dataclass(frozen=True, kw_only=True)
class PruneLayers(Prune):
    """Remove whole residual blocks, the least missed first, then fine-tune: smaller and faster.

    Args:
        blocks: How many go, one by one: after each, what is left is measured again.
        names: Blocks that may go, as in `named_modules`; empty for all residual blocks that are found.
        samples: Training samples on which it is measured how much a block is missed.
    """

    pass_name: ClassVar[str] = "prune_layers"  # noqa: S105 - a name, not a password
    blocks: int = 1
    names: tuple[str, ...] = ()
    samples: int = 1000

    def __post_init__(self) -> None:
        """Refuse what removes or measures nothing."""
        super().__post_init__()
        self.check(self.blocks >= 1, "blocks", "give at least 1")
        self.check(self.samples >= 1, "samples", "give at least 1")
