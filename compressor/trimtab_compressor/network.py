"""Make a network of a task, and check that it is one."""

from __future__ import annotations

import torch
from torch import nn

from trimtab_compressor.task import STUDENT_WIDTH, Task
from trimtab_compressor.task_data import seed_generators
from trimtab_protocol.errors import ConfigError, TrimtabError


def new_network(task: Task, width: float) -> nn.Module:
    """Build an untrained network; the same one at every call.

    Args:
        task: Gives `build_model` and the seed.
        width: 1.0 for the base; STUDENT_WIDTH for what `build_student` gives.

    Raises:
        ConfigError: `build_model` fails, or its network does not fit the task.
    """
    seed_generators(task.training.seed)
    example = torch.zeros(2, *task.input_shape)
    try:
        model = task.build(width)
        with torch.inference_mode():
            found = model.eval()(example)
        _check_finite(task, model)
    except TrimtabError:
        raise
    except Exception as error:  # the task's own code may raise anything; it is our input
        raise ConfigError(
            f"task {task.name}: {_name_maker(width)} or its network raised "
            f"{type(error).__name__}: {error}; try it on an input of shape {list(example.shape)}"
        ) from error
    if not isinstance(found, torch.Tensor) or tuple(found.shape) != (2, task.classes):
        shape = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise ConfigError(
            f"task {task.name}: the network gives {shape} for two samples, expected "
            f"[2, {task.classes}]; correct classes or the last layer"
        )
    return model


def _check_finite(task: Task, model: nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ConfigError(
                f"task {task.name}: '{name}' of the network that build_model gives holds NaN or infinite "
                "values; load other weights"
            )


def _name_maker(width: float) -> str:
    return "build_student()" if width == STUDENT_WIDTH else f"build_model({width:g})"
