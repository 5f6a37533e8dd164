"""Weights as float16 in the file: half the size, and the arithmetic of float32.

A float16 has 11 significant bits, so a weight is off by at most 2^-11 of itself; weights above
65504 become infinite, which is refused. ONNX: a Cast behind every weight, which ONNX Runtime folds
away when it loads the file. TFLite: a DEQUANTIZE, which XNNPACK reads as it is. Inputs, outputs and
activations stay float32, because CPUs before Armv8.2 have no half-precision arithmetic, and because
on x86 a graph that computes in float16 was slower than float32 (10.6 against 8.6 ms, MobileNetV2 at
224, AVX2).
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.passes.onnx_files import (
    check_excluded,
    count_weights,
    drop_unused,
    prepared,
)
from trimtab_compressor.passes.stage import FileStage, Findings
from trimtab_compressor.passes.tflite_files import quantize_tflite
from trimtab_compressor.passes.weight_types import report_change
from trimtab_compressor.specs.quantization import QuantizeFloat16
from trimtab_protocol.errors import ModelError


def quantize_float16_onnx(stage: FileStage[QuantizeFloat16]) -> Findings:
    """Store the weights of an ONNX model as float16.

    Raises:
        ConfigError: An excluded layer does not exist.
        ModelError: There is no weight, or one that float16 cannot hold.
    """
    with prepared(stage.source) as source:
        draft = source.with_name("float16.onnx")
        store_float16(source, draft, excluded=check_excluded(source, stage.spec.excluded))
        findings = report_change(count_weights(source), count_weights(draft))
        shutil.copyfile(draft, stage.target)
    return findings


def quantize_float16_tflite(stage: FileStage[QuantizeFloat16]) -> Findings:
    """Store the weights of a TFLite model as float16.

    Raises:
        ConfigError: An excluded layer does not exist.
        ModelError: There is no weight to store.
    """
    from trimtab_compressor.passes.tflite_rules import float16_rules  # noqa: PLC0415 - heavy

    return quantize_tflite(stage, float16_rules(stage.spec))


def store_float16(
    source: Path,
    target: Path,
    *,
    only: Collection[str] | None = None,
    excluded: Collection[str] = (),
) -> None:
    """Put a float16 constant and a Cast in the place of each float32 weight.

    Args:
        source: Model with named nodes.
        target: May be `source`.
        only: Layers whose weights are stored so; None for all.
        excluded: Layers whose weights are not.

    Raises:
        ModelError: A weight is too large for float16.
    """
    import onnx  # noqa: PLC0415 - heavy
    from onnx import numpy_helper  # noqa: PLC0415

    model = onnx.load(source)
    weights = {
        row.name: row
        for row in model.graph.initializer
        if row.data_type == onnx.TensorProto.FLOAT and len(row.dims) > 1
    }
    casts = {}
    for node in model.graph.node:
        is_meant = node.name not in excluded and (only is None or node.name in only)
        for index, name in enumerate(node.input):
            if not is_meant or name not in weights:
                continue
            half, full = f"{name}.float16", f"{name}.float32"
            if name not in casts:
                values = _to_float16(name, numpy_helper.to_array(weights[name]))
                model.graph.initializer.append(numpy_helper.from_array(values, half))
                casts[name] = onnx.helper.make_node(
                    "Cast", [half], [full], f"{name}.cast", to=onnx.TensorProto.FLOAT
                )
            node.input[index] = full
    nodes = [*casts.values(), *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused(model)
    onnx.save(model, target)


def _to_float16(name: str, values: AnyArray) -> AnyArray:
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise ModelError(
            f"weight '{name}' holds {np.abs(values).max():.4g}, float16 ends at 65504; exclude its layer"
        )
    return halves
