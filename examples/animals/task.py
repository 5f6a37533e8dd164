"""Animal silhouettes with a small MobileNetV2: depthwise layers, and a harder set than digits."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from trimtab_compressor.datasets.animals import CLASSES, load_animals
from trimtab_compressor.task import Task, Training

STEM = 16
HEAD = 160
BLOCKS = (
    # expansion, channels, stride: as in Sandler et al. 2018, table 2, shortened for 28 x 28
    (1, 16, 1),
    (4, 24, 2),
    (4, 24, 1),
    (4, 40, 1),
    (4, 40, 1),
    (4, 64, 1),
)


class InvertedResidual(nn.Module):
    """Expand 1x1, filter each channel 3x3, project 1x1; added to its input where both fit."""

    def __init__(self, channels: int, expansion: int, out_channels: int, stride: int) -> None:
        super().__init__()
        hidden = channels * expansion
        expand = convolve(channels, hidden, 1) if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand,
            *convolve(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.is_residual = stride == 1 and channels == out_channels

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, channels, h, w) -> (n, out_channels, h / stride, w / stride)."""
        found: Tensor = self.layers(inputs)
        return inputs + found if self.is_residual else found


def convolve(
    channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Convolution, batch normalisation, ReLU6."""
    return [
        nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    ]


class Pool(nn.Module):
    """Mean over the picture: (n, c, h, w) -> (n, c)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Average the last two axes."""
        return torch.mean(inputs, dim=(2, 3))


def build_model(width: float = 1.0) -> nn.Module:
    """63 thousand parameters at width 1; the width scales every layer, in steps of 8 channels."""
    channels = scale(STEM, width)
    layers: list[tuple[str, nn.Module]] = [
        ("stem", nn.Sequential(*convolve(1, channels, 3, stride=2)))
    ]
    for number, (expansion, wanted, stride) in enumerate(BLOCKS, start=1):
        out_channels = scale(wanted, width)
        block = InvertedResidual(channels, expansion, out_channels, stride)
        layers.append((f"block{number}", block))
        channels = out_channels
    head = scale(HEAD, width)
    layers += [
        ("head", nn.Sequential(*convolve(channels, head, 1))),  # -> (n, head, 7, 7)
        ("pool", Pool()),
        ("classifier", nn.Linear(head, len(CLASSES))),
    ]
    return nn.Sequential(OrderedDict(layers))


def scale(channels: int, width: float) -> int:
    """A multiple of 8, at least 8."""
    return max(8, round(channels * width / 8) * 8)


ANIMALS = load_animals()

TASK = Task(
    name="animals-mobilenet",
    build_model=build_model,
    input_shape=(1, 28, 28),
    classes=len(CLASSES),
    train=ANIMALS.train,
    test=ANIMALS.test,
    calibration=ANIMALS.train.inputs[:300],
    training=Training(
        epochs=6,
        fine_tune_epochs=3,
        distill_epochs=6,
        batch=64,
        learning_rate=1e-2,
        fine_tune_learning_rate=4e-3,
        seed=0,
    ),
)
