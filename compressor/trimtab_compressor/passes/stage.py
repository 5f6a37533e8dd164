"""What a pass is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from trimtab_compressor.arrays import AnyArray, IntArray
from trimtab_compressor.cache import Cache
from trimtab_compressor.learned_ranges import LearnedRange
from trimtab_compressor.runtimes.port import Arrays
from trimtab_compressor.specs.base import FileSpec, NetworkSpec
from trimtab_compressor.task import Task
from trimtab_protocol.manifest import Scalar

if TYPE_CHECKING:
    from torch import nn

NetworkSpecT = TypeVar("NetworkSpecT", bound=NetworkSpec)
FileSpecT = TypeVar("FileSpecT", bound=FileSpec)

Findings: TypeAlias = Mapping[str, Scalar]
"""What a pass found out on its way, such as the ratio at which it stopped; ends in the lineage."""


@dataclass(frozen=True)
class Network:
    """Result of a network pass.

    Args:
        module: The network, on the CPU, in evaluation mode.
        width: What `build_model` was given for it.
        findings: See Findings.
        ranges: With which its activations were trained, for a static quantization of it; empty from
            every pass that changes weights otherwise.
    """

    module: nn.Module
    width: float = 1.0
    findings: Findings = field(default_factory=dict)
    ranges: tuple[LearnedRange, ...] = ()


def _train_base(task: Task, width: float) -> nn.Module:
    from trimtab_compressor.passes.train import train_base  # noqa: PLC0415 - it imports this file

    return train_base(task, width)


@dataclass(frozen=True)
class NetworkStage(Generic[NetworkSpecT]):
    """Input of a pass over a network.

    Args:
        spec: What to do.
        task: Where the data and the training settings come from.
        model: Result of the pass before; the pass may change it. For the first pass, a new network.
        base: The network after the first pass, which later passes are compared with and taught by;
            not to be changed.
        width: What `build_model` was given for `model`.
        train_base: Gives the network of a task and a width, trained as that task's base is; the
            builder's takes it from its cache.
    """

    spec: NetworkSpecT
    task: Task
    model: nn.Module
    base: nn.Module
    width: float = 1.0
    train_base: Callable[[Task, float], nn.Module] = _train_base


@dataclass(frozen=True)
class Validation:
    """What a pass may judge its own result on; `evaluate.measure_accuracy` does.

    Args:
        inputs: By input name, as the file's runtime names them; (n, *input shape).
        labels: (n,); None if there are none, then the float model's answers stand for them.
        reference: The float model's first output for the inputs, (n, ...).
    """

    inputs: Arrays
    labels: IntArray | None
    reference: AnyArray


@dataclass(frozen=True)
class FileStage(Generic[FileSpecT]):
    """Input of a pass over a model file.

    Args:
        spec: What to do.
        source: Result of the pass before; not to be changed.
        target: Where the result goes.
        calibration: By input name, as the file's runtime names them (`open_model(source, ...).io`);
            (n, *input shape), every input with the same n.
        validation: Only for a spec that needs Need.VALIDATION.
        ranges: See Network; of the network that the first file was exported from.
        cache: For a pass that is made of passes; None to keep nothing.
    """

    spec: FileSpecT
    source: Path
    target: Path
    calibration: Arrays
    validation: Validation | None = None
    ranges: tuple[LearnedRange, ...] = ()
    cache: Cache | None = None


NetworkPass: TypeAlias = "Callable[[NetworkStage[Any]], Network]"
FilePass: TypeAlias = "Callable[[FileStage[Any]], Findings]"
