"""Find the residual blocks of a network: modules that may be replaced by what gives its input on.

A residual block computes x + f(x), perhaps with an activation that leaves its usual input as it is. It
is recognised by what it does, not by its class: with all of its weights at zero, f is zero, and the
block gives its input on. Of nested ones the innermost is taken.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError, ModelError

PROBE_SAMPLES = 4


def find_blocks(model: nn.Module, task: Task, names: Sequence[str] = ()) -> list[str]:
    """Names of the blocks that may be removed, in the network's order.

    Args:
        model: In evaluation mode afterwards; not changed.
        task: Gives inputs to try, and layers to leave alone.
        names: Only these; empty for all residual blocks that are found. A block that is named need
            not be residual, but its output must be shaped as its input.

    Raises:
        ConfigError: A name does not exist, or its block cannot be replaced.
        ModelError: There is no residual block.
    """
    calls = _record_calls(model, task)
    if names:
        _check_names(model, calls, names)
        return list(names)
    ignored = task.ignored_layers
    found = [
        name
        for name, (layer, given, _) in calls.items()
        if name not in ignored
        and any(True for _ in layer.parameters())
        and _passes_on(layer, given)
    ]
    innermost = [name for name in found if not any(row.startswith(f"{name}.") for row in found)]
    if not innermost:
        raise ModelError(
            "prune_layers removed nothing: the network has no residual block left whose output is "
            "shaped as its input; name blocks that may go in names, or use prune_channels"
        )
    return innermost


def _record_calls(model: nn.Module, task: Task) -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    """Input and output of each module that is called once with one tensor and keeps its shape."""
    names = {layer: name for name, layer in model.named_modules() if name}
    calls: dict[str, tuple[nn.Module, Tensor, Tensor]] = {}
    counts: Counter[str] = Counter()

    def note(layer: nn.Module, given: Any, output: Any) -> None:
        name = names[layer]
        counts[name] += 1
        is_one_tensor = len(given) == 1 and isinstance(given[0], Tensor)
        if is_one_tensor and isinstance(output, Tensor) and output.shape == given[0].shape:
            calls[name] = (layer, given[0].clone(), output)

    hooks = [layer.register_forward_hook(note) for layer in names]
    try:
        predict(model, task.train.inputs[:PROBE_SAMPLES])
    finally:
        for hook in hooks:
            hook.remove()
    return {name: row for name, row in calls.items() if counts[name] == 1}


@torch.inference_mode()
def _passes_on(layer: nn.Module, given: Tensor) -> bool:
    """Whether the module gives its input on when all its parameters are zero."""
    silent = copy.deepcopy(layer)
    for parameter in silent.parameters():
        parameter.zero_()
    return bool(torch.allclose(silent(given), given, atol=1e-6))


def _check_names(
    model: nn.Module, calls: dict[str, tuple[nn.Module, Tensor, Tensor]], names: Sequence[str]
) -> None:
    known = dict(model.named_modules())
    for name in names:
        if name not in known:
            raise ConfigError(
                f"prune_layers: names has '{name}', which the network has not; its modules are "
                f"{', '.join(row for row in known if row)}"
            )
        if name not in calls:
            raise ConfigError(
                f"prune_layers: '{name}' cannot be removed: it is not called once with one tensor, or "
                "its output is shaped unlike its input; name another block"
            )
