"""What tests of network passes share: stages over copies, accuracy, teachers with known answers."""

from __future__ import annotations

import copy
import statistics

import numpy as np
import torch
from torch import Tensor, nn

from support.compressor_rig import CLASSES
from trimtab_compressor.agreement import top1_accuracy
from trimtab_compressor.passes.stage import NetworkSpecT, NetworkStage
from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.task import Task


def make_stage(spec: NetworkSpecT, task: Task, base: nn.Module) -> NetworkStage[NetworkSpecT]:
    """A stage over a copy, so that the base stays as it is."""
    return NetworkStage(spec=spec, task=task, model=copy.deepcopy(base), base=base)


def accuracy(model: nn.Module, task: Task) -> float:
    return top1_accuracy(predict(model, task.test.inputs).numpy(), task.test.labels)


def percent(model: nn.Module, task: Task) -> float:
    """Accuracy on the whole test set."""
    return 100 * accuracy(model, task)


def spread(values: list[float], sign: str = "") -> str:
    """Mean ± standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):{sign}.2f} ± {deviation:.2f}"


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(row, theirs[name]) for name, row in one.state_dict().items())


class Misguided(nn.Module):
    """Answers like another network, but always with the class after it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.roll(self.network(inputs), 1, dims=1)


def misguided_share(model: nn.Module, task: Task) -> float:
    """The share of test samples that get the class after the true one."""
    found = predict(model, task.test.inputs).argmax(dim=1).numpy()
    return float(np.mean(found == (task.test.labels + 1) % CLASSES))
