"""What the ONNX quantizers share: a prepared model, its activations, and a look at its weights."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.passes.weight_types import WeightTypes
from trimtab_compressor.quiet import quiet
from trimtab_compressor.runtimes.port import Arrays, Kernels, fit_samples
from trimtab_protocol.errors import ConfigError, ErrorCode, ModelError

OLDEST_OPSET = 13
"""The first whose DequantizeLinear has a scale per channel."""


@contextmanager
def prepared(source: Path) -> Iterator[Path]:
    """A folder with `prepared.onnx`, see `preprocess`; what a library raises becomes one error.

    Raises:
        ModelError: `model.unreadable`: a quantizer of ONNX Runtime cannot work on the model.
        ConfigError: From the body.
    """
    with tempfile.TemporaryDirectory() as folder, one_error():
        yield preprocess(source, Path(folder))


@contextmanager
def one_error() -> Iterator[None]:
    """Keep the quantizer's chatter away, and make one error of whatever it raises.

    Raises:
        ModelError: `model.unreadable`: a quantizer of ONNX Runtime cannot work on the model.
        ConfigError: From the body.
    """
    with quiet():
        try:
            yield
        except (ModelError, ConfigError):
            raise
        except Exception as error:  # ONNX and its quantizers raise whatever their parts do
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            raise ModelError(
                f"ONNX Runtime's quantizer refused the model: {first}",
                code=ErrorCode.MODEL_UNREADABLE,
            ) from error


def preprocess(source: Path, folder: Path) -> Path:
    """Fold constants, infer shapes and name every node, in a new file in `folder`."""
    import onnx  # noqa: PLC0415 - heavy
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415 - heavy

    target = folder / "prepared.onnx"
    quant_pre_process(_raise_opset(source, folder), target, skip_symbolic_shape=True)
    model = onnx.load(target)
    name_nodes(model)
    onnx.save(model, target)
    return target


def name_nodes(model: Any) -> None:
    """Give each node without a name of its own the name of its first output."""
    taken: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in taken:
            node.name = next(name for name in node.output if name)
        taken.add(node.name)


def check_excluded(path: Path, excluded: Iterable[str]) -> list[str]:
    """The nodes that stay in float.

    Args:
        path: Prepared model.
        excluded: Names of layers.

    Raises:
        ConfigError: A name is none of the model's; the message says which are near.
    """
    import onnx  # noqa: PLC0415 - heavy

    wanted = list(excluded)
    if not wanted:
        return []
    refuse_unknown(wanted, [node.name for node in onnx.load(path).graph.node])
    return wanted


def refuse_unknown(wanted: Iterable[str], names: list[str]) -> None:
    """See check_excluded.

    Raises:
        ConfigError: A name is unknown.
    """
    for name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.3) or names[:8]
            raise ConfigError(
                f"excluded layer '{name}' is not in the model; near are {', '.join(near)}"
            )


def run_activations(path: Path, samples: Arrays, folder: Path) -> Iterator[Mapping[str, AnyArray]]:
    """Run a prepared model and give all float activations, its inputs too, batch by batch.

    Args:
        path: Prepared model.
        samples: By input name, (n, *sample shape).
        folder: For a copy of the model.

    Raises:
        ModelError: The runtime failed.
    """
    import onnx  # noqa: PLC0415 - heavy

    from trimtab_compressor.layers.batches import run_in_batches  # noqa: PLC0415 - with onnx
    from trimtab_compressor.runtimes.onnxruntime import OnnxRuntimeRunner  # noqa: PLC0415 - heavy

    model = onnx.load(path)
    graph = model.graph
    made = {name for node in graph.node for name in node.output}
    shown = {row.name for row in graph.output}
    for row in graph.value_info:
        is_float = row.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        if is_float and row.name in made - shown:
            graph.output.append(row)
    watched = folder / "watched.onnx"
    onnx.save(model, watched)
    runner = OnnxRuntimeRunner(watched, Kernels.DEFAULT)
    given = fit_samples(runner.io, samples, what="calibration samples")
    start = 0
    for found in run_in_batches(runner, given):
        count = len(next(iter(found.values())))
        inputs = {name: rows[start : start + count] for name, rows in given.items()}
        start += count
        yield {name: rows for name, rows in {**inputs, **found}.items() if rows.dtype.kind == "f"}


def count_weights(path: Path) -> WeightTypes:
    """The types of a file's constants of two or more dimensions, without scales and zero points."""
    import onnx  # noqa: PLC0415 - heavy

    kinds = onnx.TensorProto
    integers = {kinds.INT8, kinds.UINT8, kinds.INT4, kinds.UINT4}
    graph = onnx.load(path).graph
    steps = {
        name
        for node in graph.node
        if node.op_type in ("MatMulNBits", "DequantizeLinear", "QuantizeLinear")
        for name in node.input[2 if node.op_type == "MatMulNBits" else 1 :]
    }
    found = [
        row.data_type for row in graph.initializer if len(row.dims) > 1 and row.name not in steps
    ]
    return WeightTypes(
        integer=sum(kind in integers for kind in found),
        float16=found.count(kinds.FLOAT16),
        float32=found.count(kinds.FLOAT),
    )


def is_quantized(path: Path) -> bool:
    """Whether the model has integer weights."""
    return count_weights(path).integer > 0


def rewrite_gemm(model: Any) -> None:
    """Put MatMul and Add in the place of every Gemm with a constant matrix, for passes that know MatMul.

    The MatMul keeps the name of the Gemm.
    """
    import onnx  # noqa: PLC0415 - heavy
    from onnx import numpy_helper  # noqa: PLC0415

    constants = {row.name: row for row in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        given = {row.name: onnx.helper.get_attribute_value(row) for row in node.attribute}
        is_plain = (
            node.op_type == "Gemm"
            and node.input[1] in constants
            and given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0
            and not given.get("transA", 0)
        )
        if not is_plain:
            nodes.append(node)
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        name = f"{node.name}.weight"
        matrix = numpy_helper.from_array((weight.T if given.get("transB") else weight).copy(), name)
        model.graph.initializer.append(matrix)
        has_bias = len(node.input) > 2 and node.input[2]
        product = f"{node.name}.product" if has_bias else node.output[0]
        nodes.append(onnx.helper.make_node("MatMul", [node.input[0], name], [product], node.name))
        if has_bias:
            adder = ("Add", [product, node.input[2]], [node.output[0]], f"{node.name}.bias")
            nodes.append(onnx.helper.make_node(*adder))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused(model)


def drop_unused(model: Any) -> None:
    """Remove constants that no node reads."""
    reads = {name for node in model.graph.node for name in node.input}
    reads |= {row.name for row in model.graph.output}
    kept = [row for row in model.graph.initializer if row.name in reads]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _raise_opset(source: Path, folder: Path) -> Path:
    import onnx  # noqa: PLC0415 - heavy

    model = onnx.load(source)
    opset = next((row.version for row in model.opset_import if row.domain in ("", "ai.onnx")), 0)
    if opset >= OLDEST_OPSET:
        return source
    converted = folder / "converted.onnx"
    onnx.save(onnx.version_converter.convert_version(model, OLDEST_OPSET), converted)
    return converted
