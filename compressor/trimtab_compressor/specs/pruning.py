"""Pruning: of weights, of channels, of layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trimtab_compressor.specs.base import Need, NetworkSpec


@dataclass(frozen=True, kw_only=True)
class PruneChannels(NetworkSpec):
    """Remove whole channels, the smallest first, then fine-tune.

    Args:
        ratio: Share of the channels of every layer that goes, in (0, 1).
        round_to: Channel counts stay multiples of this; kernels like 8.
        is_fine_tuned: False when a later pass trains anyway.
    """

    pass_name: ClassVar[str] = "prune_channels"  # noqa: S105 - a name, not a password
    needs: ClassVar[frozenset[Need]] = NetworkSpec.needs | {Need.TRAINING_LABELS}
    ratio: float
    round_to: int = 8
    is_fine_tuned: bool = True

    def __post_init__(self) -> None:
        """Refuse ratios that leave everything or nothing."""
        self.check(0 < self.ratio < 1, "ratio", "it must lie between 0 and 1")
        self.check(self.round_to >= 1, "round_to", "give at least 1")
