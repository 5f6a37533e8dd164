"""The network that all tasks of this folder share, but for its last layer."""

from torch import nn


def build_small_cnn(width: float, classes: int) -> nn.Module:
    """Two convolutions, two dense layers: 105 thousand parameters at width 1 with 5 classes."""
    first, second, hidden = (max(8, round(row * width)) for row in (16, 32, 64))
    return nn.Sequential(
        nn.Conv2d(1, first, 3),  # (n, 1, 28, 28) -> (n, first, 26, 26)
        nn.ReLU(),
        nn.MaxPool2d(2),  # -> (n, first, 13, 13)
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),  # -> (n, second, 6, 6)
        nn.Flatten(),
        nn.Linear(second * 36, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),  # -> (n, classes) logits
    )
