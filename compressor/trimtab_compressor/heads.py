"""The head of a network: its last layer, which gives one number per class, and what may replace it."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvNd

from trimtab_protocol.errors import ConfigError


class MlpHead(nn.Sequential):
    """Dense, ReLU, dense: (n, features) -> (n, classes). A checkpoint knows it by its type.

    Args:
        features: Of its input.
        hidden: Units in between.
        classes: Of its output.
    """

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def find_head(model: nn.Module, classes: int) -> str:
    """Name of the last layer that has one output per class.

    Raises:
        ConfigError: There is none.
    """
    names: list[str] = [name for name, row in model.named_modules() if output_width(row) == classes]
    if not names:
        raise ConfigError(
            f"the network has no dense or convolution layer with {classes} outputs, so its head cannot "
            "be found; end it with one"
        )
    return names[-1]


def output_width(layer: nn.Module) -> int | None:
    """Outputs of a dense or convolution layer; None for others."""
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, _ConvNd) else None
