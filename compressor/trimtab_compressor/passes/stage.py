"""What a pass is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from trimtab_compressor.arrays import FloatArray
from trimtab_compressor.passes.specs import Spec
from trimtab_compressor.task import Task

if TYPE_CHECKING:
    from torch import nn

SpecT = TypeVar("SpecT", bound=Spec)


@dataclass(frozen=True)
class TorchStage(Generic[SpecT]):
    """Input of a pass over a network.

    Args:
        spec: What to do.
        task: Where the data and the training settings come from.
        model: Result of the pass before; the pass may change it. For `train`, a new network.
        base: The trained base network; not to be changed.
    """

    spec: SpecT
    task: Task
    model: nn.Module
    base: nn.Module


@dataclass(frozen=True)
class FileStage(Generic[SpecT]):
    """Input of a pass over a model file.

    Args:
        spec: What to do.
        source: Float model; not to be changed.
        target: Where the result goes.
        calibration: (n, *input shape), float32.
    """

    spec: SpecT
    source: Path
    target: Path
    calibration: FloatArray
