"""Export a network to TFLite with LiteRT's converter; the batch is fixed at 1."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from trimtab_compressor.passes.tflite_files import pack_inside
from trimtab_compressor.quiet import quiet
from trimtab_protocol.errors import ModelError


def export_tflite(model: nn.Module, input_shape: tuple[int, ...], target: Path) -> None:
    """Write `model` as one TFLite file.

    Raises:
        ModelError: The network uses something that cannot be converted.
    """
    with quiet():
        import litert_torch  # noqa: PLC0415 - takes seconds, and prints

        try:
            converted = litert_torch.convert(model.eval(), (torch.zeros(1, *input_shape),))
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(f"the network cannot be converted to TFLite: {first}") from error
        converted.export(str(target))
        pack_inside(target)
