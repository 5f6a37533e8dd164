"""Quantize a TFLite file with AI Edge Quantizer, and look at the result.

Two things are mended on the way, because files of other people have them:
    no signature        AI Edge Quantizer calibrates by signature, so a file without one gets one.
    external buffers    weights behind the flatbuffer, which tflite-runtime up to 2.13 does not find.
                        What is written here has them inside.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.passes.onnx_files import refuse_unknown
from trimtab_compressor.passes.ranges import Range, find_ranges
from trimtab_compressor.passes.stage import FileStage, Findings
from trimtab_compressor.passes.weight_types import WeightTypes, report_change
from trimtab_compressor.quiet import quiet
from trimtab_compressor.runtimes.port import Arrays
from trimtab_compressor.specs.quantization import QuantizeStatic
from trimtab_compressor.threads import thread_count
from trimtab_protocol.errors import ConfigError, ErrorCode, ModelError

SIGNATURE = "serving_default"

Rules: TypeAlias = "list[dict[str, Any]]"
"""What AI Edge Quantizer is told, see tflite_rules."""


def quantize_tflite(
    stage: FileStage[Any], rules: Rules, learned: Mapping[str, Range] = MappingProxyType({})
) -> Findings:
    """Quantize `stage.source` into `stage.target`, which is not touched if something goes wrong.

    Args:
        stage: The spec's `excluded` is checked; a static one's calibrator is used.
        rules: What to do.
        learned: Ranges that stand above what calibration finds.

    Raises:
        ConfigError: An excluded layer does not exist.
        ModelError: The quantizer refused the file, or left it as it was.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, draft = Path(folder) / "signed.tflite", Path(folder) / "quantized.tflite"
        model = read_tflite(stage.source)
        refuse_unknown(stage.spec.excluded, list_layers(model))
        sign(model)
        write_tflite(model, source)
        with quiet():
            _quantize(source, draft, rules, stage, learned)
        made = read_tflite(draft)
        findings = report_change(count_weights(model), count_weights(made))
        write_tflite(made, stage.target)
    return findings


def read_tflite(path: Path) -> Any:
    """The file as objects of its schema, all buffers inside.

    Raises:
        ModelError: `model.unreadable`: it is no TFLite file.
    """
    from ai_edge_litert.tools import flatbuffer_utils  # noqa: PLC0415 - heavy

    try:
        return flatbuffer_utils.read_model(str(path))
    except Exception as error:  # flatbuffers checks nothing: any error may come of a wrong offset
        raise ModelError(
            f"{path} cannot be read as a TFLite model: {error}", code=ErrorCode.MODEL_UNREADABLE
        ) from error


def write_tflite(model: Any, path: Path) -> None:
    """Write a file whose buffers are inside."""
    from ai_edge_litert.tools import flatbuffer_utils  # noqa: PLC0415 - heavy

    flatbuffer_utils.write_model(model, str(path))


def pack_inside(path: Path) -> None:
    """Write a file again, with all buffers inside.

    Raises:
        ModelError: `model.unreadable`: it is no TFLite file.
    """
    write_tflite(read_tflite(path), path)


def sign(model: Any) -> None:
    """Give a model without a signature one, over its first graph."""
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415 - heavy

    if model.signatureDefs:
        return
    graph = model.subgraphs[0]

    def map_tensors(indices: Any) -> list[Any]:
        rows = []
        for index in indices:
            row = schema.TensorMapT()
            row.name, row.tensorIndex = graph.tensors[index].name, int(index)
            rows.append(row)
        return rows

    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SIGNATURE.encode(), 0
    signature.inputs, signature.outputs = map_tensors(graph.inputs), map_tensors(graph.outputs)
    model.signatureDefs = [signature]


def list_layers(model: Any) -> list[str]:
    """Names of the operators' first outputs."""
    return [
        graph.tensors[operator.outputs[0]].name.decode()
        for graph in model.subgraphs
        for operator in graph.operators
        if len(operator.outputs)
    ]


def count_weights(model: Any) -> WeightTypes:
    """The types of a model's constants of two or more dimensions."""
    from ai_edge_litert.schema_py_generated import TensorType  # noqa: PLC0415 - heavy

    found = [
        tensor.type
        for graph in model.subgraphs
        for tensor in graph.tensors
        if _is_constant(model, tensor) and tensor.shape is not None and len(tensor.shape) > 1
    ]
    return WeightTypes(
        integer=found.count(TensorType.INT8) + found.count(TensorType.INT4),
        float16=found.count(TensorType.FLOAT16),
        float32=found.count(TensorType.FLOAT32),
    )


def is_quantized(path: Path) -> bool:
    """Whether the model has integer weights."""
    return count_weights(read_tflite(path)).integer > 0


def run_activations(path: Path, samples: Arrays) -> Iterator[Mapping[str, AnyArray]]:
    """Run a model and give all float activations, its inputs too, one sample at a time.

    Args:
        path: With one sample per run.
        samples: By tensor name, (n, *sample shape).
    """
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - heavy

    worker = Interpreter(
        str(path), num_threads=thread_count(), experimental_preserve_all_tensors=True
    )
    worker.allocate_tensors()
    inputs = worker.get_input_details()
    made = {int(index) for row in worker._get_ops_details() for index in row["outputs"]}
    made |= {row["index"] for row in inputs}
    watched = [
        row
        for row in worker.get_tensor_details()
        if row["index"] in made and row["dtype"] is np.float32
    ]
    for at in range(len(next(iter(samples.values())))):
        for row in inputs:
            worker.set_tensor(row["index"], samples[row["name"]][at : at + 1])
        worker.invoke()
        yield {row["name"]: worker.get_tensor(row["index"])[None] for row in watched}


def _quantize(
    source: Path, target: Path, rules: Rules, stage: FileStage[Any], learned: Mapping[str, Range]
) -> None:
    from ai_edge_quantizer import quantizer  # noqa: PLC0415 - heavy

    try:
        worker = quantizer.Quantizer(str(source), rules)
        found = None
        if worker.need_calibration:
            found = worker.calibrate(_first_sample(source, stage), num_threads=thread_count())
            _put_ranges(found, {**_find_ranges(source, stage), **learned})
        worker.quantize(found).export_model(str(target), overwrite=True)
    except (ModelError, ConfigError):
        raise
    except Exception as error:  # the quantizer raises whatever its parts do
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise ModelError(
            f"the TFLite quantizer refused the model: {first}", code=ErrorCode.MODEL_UNREADABLE
        ) from error


def _find_ranges(source: Path, stage: FileStage[QuantizeStatic]) -> dict[str, Range]:
    spec = stage.spec
    return find_ranges(
        lambda: run_activations(source, stage.calibration),
        spec.calibrator,
        spec.percentile,
        levels=2**spec.activation_bits,
    )


def _put_ranges(calibrated: dict[str, Any], ranges: Mapping[str, Range]) -> None:
    """Replace what the quantizer saw, which are arrays of one value."""
    for name, row in calibrated.items():
        if name in ranges and row:
            low, high = ranges[name]
            row["min"], row["max"] = np.full_like(row["min"], low), np.full_like(row["max"], high)


def _first_sample(path: Path, stage: FileStage[Any]) -> dict[str, list[dict[str, AnyArray]]]:
    """By the signature's names: enough to learn which tensors need a range."""
    from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - heavy

    worker = Interpreter(str(path))
    key = next(iter(worker.get_signature_list()))
    details = worker.get_signature_runner(key).get_input_details()
    return {key: [{name: stage.calibration[row["name"]][:1] for name, row in details.items()}]}


def _is_constant(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0
