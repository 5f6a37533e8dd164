"""A network as small as can be that has all parts of a MobileNetV2, for the tiny task."""

from __future__ import annotations

from torch import Tensor, nn

from support.compressor_rig import CLASSES


class Block(nn.Module):
    """Expand, filter each channel, project; added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 2 * channels
        self.expand = nn.Conv2d(channels, hidden, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.filter = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same."""
        hidden = self.relu(self.norm1(self.expand(x)))
        hidden = self.relu(self.norm2(self.filter(hidden)))
        projected: Tensor = self.norm3(self.project(hidden))
        return x + projected


def build_mobile(width: float = 1.0) -> nn.Module:
    """Stem, one block, a convolution with bias, dense."""
    channels = max(8, round(8 * width))
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, stride=(1, 2), padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU6(),
        Block(channels),
        nn.MaxPool2d((1, 2)),
        nn.Dropout(0.1),
        nn.Conv2d(channels, 2 * channels, (3, 1), bias=True),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * channels * 12, CLASSES),
    )
