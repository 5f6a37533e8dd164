"""Two artifacts that must never run: properly signed, and wrong.

One computes something else than its golden vectors say (weights that were mixed up on the way to
packaging). The other is right and much slower than what is running (a network six times as wide).
"""

from __future__ import annotations

from pathlib import Path

from trimtab_compressor.export.onnx import export_onnx
from trimtab_compressor.keys import read_key
from trimtab_compressor.package import PackagedArtifact, package_model, write_artifact
from trimtab_compressor.task import Task
from trimtab_protocol.manifest import GoldenVector, Manifest

SLOW_WIDTH = 6.0


def make_bad_golden(
    task: Task, good_model: Path, good: Manifest, version: int, *, key: Path, folder: Path
) -> Path:
    """The good model, with each golden input paired with the output of the next one."""
    vectors = good.golden.vectors
    moved = tuple(
        GoldenVector(inputs=vectors[i].inputs, outputs=vectors[(i + 1) % len(vectors)].outputs)
        for i in range(len(vectors))
    )
    artifact = package_model(
        good_model,
        name=good.name,
        version=version,
        recipe="mixed_up",
        private_key=read_key(key),
        samples=task.test.inputs[:8],
        golden=good.golden.model_copy(update={"vectors": moved}),
    )
    return _write(artifact, folder)


def make_slower(task: Task, name: str, version: int, key: Path, folder: Path) -> Path:
    """An untrained network that is far wider; its golden vectors are honest."""
    path = folder / "slower.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    export_onnx(task.build_model(SLOW_WIDTH), task.input_shape, path)
    artifact = package_model(
        path,
        name=name,
        version=version,
        recipe=f"width{SLOW_WIDTH:.0f}",
        private_key=read_key(key),
        samples=task.test.inputs[:8],
    )
    return _write(artifact, folder)


def _write(artifact: PackagedArtifact, folder: Path) -> Path:
    return write_artifact(artifact, folder)[1]
