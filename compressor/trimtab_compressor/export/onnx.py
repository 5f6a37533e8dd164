"""Export a network to ONNX with a free batch dimension."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import nn

from trimtab_compressor.quiet import quiet
from trimtab_protocol.errors import ModelError

OPSET = 20
"""The newest that every ONNX Runtime since 1.17 knows; also torch's own default."""


def export_onnx(model: nn.Module, input_shape: tuple[int, ...], target: Path) -> None:
    """Write `model` as one ONNX file with input `input` and output `output`.

    Raises:
        ModelError: The network uses something that cannot be exported.
    """
    example = torch.zeros(2, *input_shape)  # a batch of 1 would be taken for a constant
    with quiet():
        try:
            program = torch.onnx.export(
                model.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                input_names=["input"],
                output_names=["output"],
                verbose=False,
            )
        except (torch.onnx.OnnxExporterError, torch.onnx.errors.OnnxExporterError) as error:
            first = str(error).strip().splitlines()[0]
            raise ModelError(f"the network cannot be exported to ONNX: {first}") from error
        assert program is not None
        program.save(target, external_data=False)
        onnx.checker.check_model(str(target), full_check=True)
