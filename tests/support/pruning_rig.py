"""Small networks whose structure pruning has to follow, and a trained one of them."""

from __future__ import annotations

import copy
import functools

import torch
from torch import Tensor, nn

from support.compressor_rig import CLASSES, a_task
from trimtab_compressor.passes.stage import NetworkSpecT, NetworkStage
from trimtab_compressor.passes.train import train
from trimtab_compressor.specs.training import Train
from trimtab_compressor.task import Task


class Inverted(nn.Module):
    """Expand, depthwise, project; with a shortcut where the shape stays (MobileNetV2)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.is_residual = channels == out
        hidden = 2 * channels
        self.body = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.body(x)
        return x + found if self.is_residual else found


class Basic(nn.Module):
    """Two convolutions and an activation behind the addition (ResNet)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class Residual(nn.Module):
    """Stem, three inverted blocks of which two are residual, one basic block, head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.blocks = nn.Sequential(Inverted(16, 16), Inverted(16, 24), Inverted(24, 24))
        self.last = nn.Sequential(nn.ReLU(), Basic(24), nn.MaxPool2d(2))
        self.head = nn.Linear(24 * 16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(torch.flatten(self.last(self.blocks(self.stem(x))), 1))
        return found


def build_residual(width: float = 1.0) -> nn.Module:
    del width
    return Residual()


def residual_task(**changes: object) -> Task:
    return a_task(build_model=build_residual, **changes)


@functools.cache
def _trained_residual() -> nn.Module:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_residual()
    return train(NetworkStage(spec=Train(), task=residual_task(), model=model, base=model)).module


def trained_residual() -> nn.Module:
    """A copy of a network that was trained once."""
    return copy.deepcopy(_trained_residual())


def stage_of(spec: NetworkSpecT, task: Task, base: nn.Module) -> NetworkStage[NetworkSpecT]:
    """A stage over a copy, so that the base stays as it is."""
    return NetworkStage(spec=spec, task=task, model=copy.deepcopy(base), base=base)
