"""The network of a task in whatever form a person has it, as a function of its width."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimtab_protocol.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class FixedWidth:
    """A network that comes in one width only.

    Args:
        make: Gives a new one.
        what: How it was given, for messages.
    """

    make: Callable[[], nn.Module]
    what: str

    def __call__(self, width: float) -> nn.Module:
        """A new network.

        Raises:
            ConfigError: Another width than 1 is asked for.
        """
        if width != 1.0:
            raise ConfigError(
                f"a network of width {width:g} is asked for, but build_model is {self.what}, which has "
                "one width; give a function of the width, or leave out the passes that need another"
            )
        return self.make()


def read_builder(given: Any, where: str) -> Callable[[float], nn.Module]:
    """What was given as `build_model`, as a function of the width.

    Args:
        given: A function of the width; a function without arguments; or a network, whose weights are
            where training begins.
        where: Of which task, for messages.

    Raises:
        ConfigError: It is none of these.
    """
    if is_network(given):
        return FixedWidth(lambda: copy.deepcopy(given), f"a network ({type(given).__name__})")
    if not callable(given):
        raise ConfigError(
            f"{where}: build_model must be a function of the width, a function without arguments, or a "
            f"torch.nn.Module; it is a {type(given).__name__}"
        )
    if isinstance(given, FixedWidth):
        return given
    try:
        parameters = list(inspect.signature(given).parameters.values())
    except (TypeError, ValueError):  # native code tells nothing
        return given  # type: ignore[no-any-return]
    required = [
        row
        for row in parameters
        if row.kind in _POSITIONAL and row.default is inspect.Parameter.empty
    ]
    if parameters and parameters[0].name == "width" and parameters[0].kind in _POSITIONAL:
        required = required or parameters[:1]
    if len(required) > 1:
        raise ConfigError(
            f"{where}: build_model needs {', '.join(row.name for row in required)}; it must need the "
            "width alone, or nothing"
        )
    return given if required else FixedWidth(given, "a function without a width")


def is_network(value: object) -> bool:
    """Whether it is a torch.nn.Module; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)
