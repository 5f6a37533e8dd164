"""Distillation: a network learns from another's answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trimtab_compressor.specs.base import Need, NetworkSpec


@dataclass(frozen=True, kw_only=True)
class Distill(NetworkSpec):
    """Teach a smaller network with the base network's soft answers (Hinton et al., 2015).

    Args:
        width: Of a new student; None to teach the network that the earlier passes made.
        temperature: Softens both answers; the loss is scaled by its square.
        soft_weight: Share of the soft loss, the rest is the labels'; 0 to 1.
    """

    pass_name: ClassVar[str] = "distill"  # noqa: S105 - a name, not a password
    needs: ClassVar[frozenset[Need]] = NetworkSpec.needs | {Need.TRAINING_LABELS}
    width: float | None = None
    temperature: float = 4.0
    soft_weight: float = 0.9

    def __post_init__(self) -> None:
        """Refuse what cannot teach."""
        self.check(self.width is None or self.width > 0, "width", "it must be above 0")
        self.check(self.temperature > 0, "temperature", "it must be above 0")
        self.check(0 <= self.soft_weight <= 1, "soft_weight", "it must lie between 0 and 1")
