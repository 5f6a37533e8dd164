"""Transfer, what both ways share: layers of another task's network, and the head.

The layers are copied by name into this task's own network, so what comes out is an ordinary network
of this task: every later pass, and a checkpoint, know it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trimtab_compressor.arrays import digest_file
from trimtab_compressor.heads import find_head
from trimtab_compressor.passes.stage import Findings, NetworkStage
from trimtab_compressor.task import Task
from trimtab_compressor.task_file import load_task
from trimtab_protocol.errors import ConfigError


def start_from_source(stage: NetworkStage[Any], source_task: str | None) -> tuple[str, Findings]:
    """Put the source's layers into the network, all but the head.

    Args:
        stage: Its model is changed.
        source_task: See `specs.transfer.Transfer`; None leaves the network as it is.

    Returns:
        The head's name, and what was found.

    Raises:
        ConfigError: The source cannot be loaded, or its layers do not fit.
    """
    task, model = stage.task, stage.model
    head = find_head(model, task.classes)
    if source_task is None:
        return head, {}
    source = load_source(source_task)
    network = stage.train_base(source, 1.0)
    copy_layers(network, find_head(network, source.classes), model, head)
    return head, {"source": source.name, "source_sha256": source.source_sha256}


def load_source(source_task: str) -> Task:
    """The source, loaded once for all steps that depend on it, as long as its file does not change.

    Raises:
        ConfigError: There is no such file, or it defines no valid task.
        TransientError: The task's data could not be fetched.
    """
    path = Path(source_task)
    return _load(path, digest_file(path) if path.is_file() else "")


@lru_cache(maxsize=4)
def _load(path: Path, _digest: str) -> Task:
    return load_task(path)


def copy_layers(source: nn.Module, source_head: str, target: nn.Module, head: str) -> None:
    """Copy all weights and buffers but the heads'.

    Raises:
        ConfigError: The networks differ in more than the head; the message names the first place.
    """
    theirs, ours = _body(source, source_head), _body(target, head)
    for name in [*theirs, *ours]:
        found, wanted = theirs.get(name), ours.get(name)
        if found is None or wanted is None or found.shape != wanted.shape:
            raise ConfigError(
                f"the source's network has {_describe(found)} at '{name}', this task's has "
                f"{_describe(wanted)}; let both tasks build the same network but for the last layer"
            )
    with torch.no_grad():
        for name, tensor in ours.items():
            tensor.copy_(theirs[name])


def _body(model: nn.Module, head: str) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name.rpartition(".")[0] != head
    }


def _describe(tensor: torch.Tensor | None) -> str:
    return "nothing" if tensor is None else f"a tensor of shape {list(tensor.shape)}"
