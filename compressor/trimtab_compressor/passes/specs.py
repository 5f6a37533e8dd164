"""What each pass can be told. Pure: no torch, no runtime.

A spec and its input decide the result completely, so specs are part of the cache key and of the
manifest's lineage.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar, TypeAlias

from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import Scalar


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Base of all specs: a stable name, and plain parameters."""

    pass_name: ClassVar[str]

    def parameters(self) -> dict[str, Scalar]:
        """The parameters as they stand in a manifest."""
        return dict(asdict(self))


@dataclass(frozen=True, kw_only=True)
class Train(Spec):
    """Train the base network from nothing."""

    pass_name: ClassVar[str] = "train"  # noqa: S105 - a name, not a password


@dataclass(frozen=True, kw_only=True)
class PruneChannels(Spec):
    """Remove whole channels, the smallest first, then fine-tune.

    Args:
        ratio: Share of the channels of every layer that goes, in (0, 1).
        round_to: Channel counts stay multiples of this; kernels like 8.
        is_fine_tuned: False when a later pass trains anyway.
    """

    pass_name: ClassVar[str] = "prune_channels"  # noqa: S105 - a name, not a password
    ratio: float
    round_to: int = 8
    is_fine_tuned: bool = True

    def __post_init__(self) -> None:
        """Refuse ratios that leave everything or nothing."""
        if not 0 < self.ratio < 1:
            raise ConfigError(f"prune_channels: ratio is {self.ratio}, it must lie between 0 and 1")
        if self.round_to < 1:
            raise ConfigError(f"prune_channels: round_to is {self.round_to}, at least 1 is needed")


@dataclass(frozen=True, kw_only=True)
class Distill(Spec):
    """Teach a smaller network with the base network's soft answers (Hinton et al., 2015).

    Args:
        width: Of a new student; None to teach the network that the earlier passes made.
        temperature: Softens both answers; the loss is scaled by its square.
        soft_weight: Share of the soft loss, the rest is the labels'; 0 to 1.
    """

    pass_name: ClassVar[str] = "distill"  # noqa: S105 - a name, not a password
    width: float | None = None
    temperature: float = 4.0
    soft_weight: float = 0.9

    def __post_init__(self) -> None:
        """Refuse what cannot teach."""
        if self.width is not None and self.width <= 0:
            raise ConfigError(f"distill: width is {self.width}, it must be above 0")
        if self.temperature <= 0 or not 0 <= self.soft_weight <= 1:
            raise ConfigError("distill: temperature must be above 0, soft_weight between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class QuantizeDynamic(Spec):
    """Weights to int8 in the file; activations are quantized while the model runs.

    Args:
        is_range_reduced: ONNX only: weights keep to 7 bits, see QuantizeStatic.
    """

    pass_name: ClassVar[str] = "quantize_dynamic"  # noqa: S105 - a name, not a password
    is_range_reduced: bool = False


@dataclass(frozen=True, kw_only=True)
class QuantizeStatic(Spec):
    """Weights and activations to int8, with ranges from the calibration samples.

    Args:
        is_symmetric: Signed activations around zero; else with a zero point of their own.
        is_per_channel: One weight scale per output channel.
        is_range_reduced: Weights keep to 7 bits, so that x86 CPUs without VNNI cannot saturate.
    """

    pass_name: ClassVar[str] = "quantize_static"  # noqa: S105 - a name, not a password
    is_symmetric: bool = False
    is_per_channel: bool = True
    is_range_reduced: bool = False


TorchSpec: TypeAlias = Train | PruneChannels | Distill
FileSpec: TypeAlias = QuantizeDynamic | QuantizeStatic
