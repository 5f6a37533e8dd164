"""What both ONNX quantizers need: shape inference before, and a look at the result after."""

from __future__ import annotations

from pathlib import Path

from trimtab_protocol.errors import ErrorCode, ModelError

CALIBRATION_BATCH = 50


def preprocess(source: Path, folder: Path) -> Path:
    """Fold constants and infer shapes into a new file in `folder`."""
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415 - heavy

    target = folder / "prepared.onnx"
    quant_pre_process(source, target, skip_symbolic_shape=True)
    return target


def calibration_batch(path: Path) -> int:
    """How many samples one calibration run may take: many where the batch is free, else one."""
    import onnx  # noqa: PLC0415 - heavy

    graph = onnx.load(path, load_external_data=False).graph
    constants = {row.name for row in graph.initializer}
    shapes = [row.type.tensor_type.shape.dim for row in graph.input if row.name not in constants]
    return CALIBRATION_BATCH if all(dims and not dims[0].dim_value for dims in shapes) else 1


def is_quantized(path: Path) -> bool:
    """Whether the model has 8-bit weights of two or more dimensions."""
    import onnx  # noqa: PLC0415 - heavy

    integers = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    return any(
        row.data_type in integers and len(row.dims) > 1 for row in onnx.load(path).graph.initializer
    )


def check_is_quantized(path: Path) -> None:
    """Make sure that weights really became 8-bit integers.

    Raises:
        ModelError: Not one weight did.
    """
    if not is_quantized(path):
        raise ModelError(
            "nothing was quantized: the model has no layer with constant float weights that this "
            "pass can quantize; use another recipe",
            code=ErrorCode.MODEL_UNREADABLE,
        )
