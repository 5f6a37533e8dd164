"""Inspect one file: read it, describe it, try to run it, say what can be done with it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from trimtab_compressor.arrays import digest_file
from trimtab_compressor.inspection.advice import advise
from trimtab_compressor.inspection.describe import describe
from trimtab_compressor.inspection.description import Inspection
from trimtab_compressor.inspection.graph import ModelGraph
from trimtab_compressor.runtimes.table import format_of
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import ModelFormat

Shapes = dict[str, tuple[int, ...]]


def read_graph(path: Path, shapes: Shapes | None = None) -> ModelGraph:
    """Read a file of either format.

    Raises:
        ConfigError: There is no such file, or a shape does not fit.
        ModelError: `model.unreadable`.
    """
    if format_of(path) is ModelFormat.ONNX:
        from trimtab_compressor.inspection.onnx_graph import read_onnx_graph  # noqa: PLC0415 - heavy

        return read_onnx_graph(path, shapes or {})
    if shapes:
        raise ConfigError("--shape is for ONNX files; a TFLite file carries its shapes")
    from trimtab_compressor.inspection.tflite_graph import read_tflite_graph  # noqa: PLC0415 - heavy

    return read_tflite_graph(path)


def describe_file(path: Path, shapes: Shapes | None = None) -> Inspection:
    """What is in a file, without running it.

    Raises:
        ConfigError: There is no such file, or a shape does not fit.
        ModelError: `model.unreadable`.
    """
    graph = read_graph(path, shapes)
    return describe(graph, file=path.name, size_bytes=path.stat().st_size, sha256=digest_file(path))


def inspect_file(path: Path, shapes: Shapes | None = None) -> Inspection:
    """What is in a file, whether it runs here, and what can be done with it.

    Raises:
        ConfigError: There is no such file, or a shape does not fit.
        ModelError: `model.unreadable`.
    """
    from trimtab_compressor.inspection.running import try_to_run  # noqa: PLC0415 - heavy

    found = describe_file(path, shapes)
    found = found.model_copy(update={"runs_here": try_to_run(path, shapes or {})})
    return found.model_copy(update={"passes": advise(found)})


def inspect_task(path: Path) -> Inspection:
    """What is in a task's network, untrained, by way of its export to ONNX.

    Raises:
        ConfigError: The task is wrong.
        ModelError: The network cannot be exported.
    """
    from trimtab_compressor.export.onnx import export_onnx  # noqa: PLC0415 - imports torch
    from trimtab_compressor.network import new_network  # noqa: PLC0415
    from trimtab_compressor.task_file import load_task  # noqa: PLC0415

    task = load_task(path)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"{task.name}.onnx"
        export_onnx(new_network(task, 1.0), task.input_shape, target)
        found = inspect_file(target)
    note = "the task's network before training, exported to ONNX; passes over networks apply too"
    return found.model_copy(update={"notes": (note, *found.notes)})
