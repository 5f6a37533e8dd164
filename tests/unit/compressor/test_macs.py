"""Multiply-accumulates, against figures worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trimtab_compressor.macs import count_macs, count_parameters


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x @ x.transpose(1, 2)  # (1, 5, 4) x (1, 4, 5)


class Recurrent(nn.Module):
    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)[0]
        return found


@pytest.mark.parametrize(
    ("model", "shape", "macs"),
    [
        (nn.Conv2d(3, 8, 3), (3, 10, 10), 8 * 8 * 8 * 3 * 9),
        (nn.Conv2d(8, 8, 3, groups=8, padding=1), (8, 10, 10), 100 * 8 * 9),
        (nn.Conv1d(2, 4, 5, stride=2), (2, 21), 9 * 4 * 2 * 5),
        (nn.ConvTranspose2d(4, 2, 2, stride=2), (4, 5, 5), 25 * 4 * 2 * 4),
        (nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 3)), (6,), 36),
        (Attention(), (5, 4), 100),
        (Recurrent(nn.LSTM(6, 8, batch_first=True)), (7, 6), 7 * 4 * 8 * (6 + 8)),
        (
            Recurrent(nn.GRU(6, 8, num_layers=2, bidirectional=True, batch_first=True)),
            (7, 6),
            7 * 2 * 3 * 8 * ((6 + 8) + (16 + 8)),
        ),
    ],
    ids=["conv", "depthwise", "conv1d", "transposed", "dense", "attention", "lstm", "gru"],
)
def test_macs_are_those_of_the_formula(model: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    assert count_macs(model, shape) == macs
    assert not model.training


def test_counting_changes_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    before = {name: row.clone() for name, row in model.state_dict().items()}
    count_macs(model, (1, 8, 8))
    assert all(torch.equal(row, before[name]) for name, row in model.state_dict().items())
    assert count_parameters(model) == 4 * 9 + 4 + 8
