"""Save a network's weights, whatever pruning did to its shapes, without pickling code.

The file holds tensors, names and whole numbers only and is read with `weights_only`. A pruned network
is rebuilt by making the unpruned one of the same width, removing the blocks that were removed, giving
its layers the saved sizes, and marking those whose zeros are held.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import torch
from torch import nn

from trimtab_compressor.heads import MlpHead
from trimtab_compressor.learned_ranges import Fingerprint, LearnedRange
from trimtab_compressor.structure import (
    mark_masked,
    masked_layers,
    remove_blocks,
    removed_blocks,
    replace_module,
)
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ErrorCode, StorageError

SIZES = (
    *("in_channels", "out_channels", "in_features", "out_features", "num_features", "groups"),
    *("num_channels", "num_groups", "num_parameters", "normalized_shape"),
)


def save_checkpoint(
    model: nn.Module, width: float, path: Path, ranges: Sequence[LearnedRange] = ()
) -> None:
    """Write weights, buffers and layer sizes.

    Args:
        model: The network, on the CPU.
        width: What `build_model` was given for it.
        path: Of the file.
        ranges: With which its activations were trained.
    """
    sizes = {
        f"{name}.{size}": getattr(layer, size)
        for name, layer in model.named_modules()
        for size in SIZES
        if isinstance(getattr(layer, size, None), int | tuple)
    }
    heads = {
        name: [layer[0].in_features, layer[0].out_features, layer[2].out_features]
        for name, layer in model.named_modules()
        if isinstance(layer, MlpHead)
    }
    saved = {
        "width": width,
        "sizes": sizes,
        "heads": heads,
        "removed": removed_blocks(model),
        "masked": list(masked_layers(model)),
        "tensors": model.state_dict(),
        "ranges": [astuple(row) for row in ranges],
    }
    torch.save(saved, path)


def load_checkpoint(task: Task, path: Path) -> tuple[nn.Module, float]:
    """Rebuild a network that `save_checkpoint` wrote, and its width.

    Raises:
        StorageError: The file is damaged or belongs to another network; delete it.
    """
    try:
        saved = torch.load(path, weights_only=True)
        model = task.build(saved["width"])
        for name, shape in saved.get("heads", {}).items():
            replace_module(model, name, MlpHead(*shape))
        remove_blocks(model, saved.get("removed", ()))
        layers = dict(model.named_modules())
        for key, size in saved["sizes"].items():
            name, attribute = key.rsplit(".", 1)
            setattr(layers[name], attribute, size)
        for key, tensor in saved["tensors"].items():
            name, _, attribute = key.rpartition(".")
            _set_tensor(layers[name], attribute, tensor)
        mark_masked(layers[name] for name in saved.get("masked", ()))
    except (KeyError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise StorageError(
            f"{path} cannot be read as a saved network ({error}); delete it and run again",
            code=ErrorCode.STORAGE_CORRUPT,
        ) from error
    return model.eval(), float(saved["width"])


def load_ranges(path: Path) -> tuple[LearnedRange, ...]:
    """The ranges that `save_checkpoint` wrote.

    Raises:
        StorageError: The file is damaged; delete it.
    """
    try:
        saved = torch.load(path, weights_only=True).get("ranges", ())
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise StorageError(
            f"{path} cannot be read as a saved network ({error}); delete it and run again",
            code=ErrorCode.STORAGE_CORRUPT,
        ) from error
    return tuple(
        LearnedRange(name, low, high, Fingerprint(*fingerprint))
        for name, low, high, fingerprint in saved
    )


def _set_tensor(layer: nn.Module, attribute: str, tensor: torch.Tensor) -> None:
    current = getattr(layer, attribute)
    if isinstance(current, nn.Parameter):
        current.data = tensor
    else:
        layer.register_buffer(attribute, tensor)
