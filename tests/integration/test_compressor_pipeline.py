"""The steps of a task: each is evaluated, and none is computed twice."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from support.compressor_rig import a_task
from trimtab_compressor.build import Builder
from trimtab_compressor.cache import Cache
from trimtab_compressor.recipe import Choice
from trimtab_compressor.task import Training
from trimtab_protocol.manifest import ModelFormat

CHOICE = Choice("prune50_static_w8a8", ModelFormat.ONNX)
TITLES = [
    "train",
    "run the network on the test set",
    "evaluate the network after train",
    "export onnx",
    "evaluate the file after export onnx",
    "prune_channels",
    "run the network on the test set",
    "evaluate the network after prune_channels",
    "export onnx",
    "evaluate the file after export onnx",
    "quantize_static onnx",
    "evaluate the file after quantize_static onnx",
]


class Stops:
    """Told what is about to be computed; interrupts at the second step of a run."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, title: str) -> None:
        self.told.append(title)
        if len(self.told) == 2:
            raise KeyboardInterrupt


def test_a_run_interrupted_at_every_step_goes_on_and_computes_nothing_twice(tmp_path: Path) -> None:
    task, cache = a_task(training=Training(epochs=3, batch=32, learning_rate=5e-3)), Cache(tmp_path)
    runs: list[list[str]] = []
    while not runs or len(runs[-1]) == 2:
        stops = Stops()
        builder = Builder(task, cache, stops)
        with contextlib.suppress(KeyboardInterrupt):
            built = builder.build(CHOICE)
        runs.append(stops.told)
    done = [run[0] for run in runs]
    assert len(done) == len(TITLES)
    assert all(title.startswith(known) for title, known in zip(done, TITLES, strict=True))
    assert [run[1] for run in runs[:-1]] == done[1:]
    assert builder.count_steps([CHOICE]) == len(TITLES)

    names = ["train", "prune_channels", "export", "quantize_static"]
    assert [row.name for row in built.steps] == names
    assert [row.kind for row in built.steps] == ["network", "network", "file", "file"]
    assert all(row.samples == 120 for row in built.steps)
    trained, pruned, exported, quantized = built.steps
    assert trained.macs == 16 * 36 * 9 + 144 * 32 + 32 * 3
    assert pruned.macs == 8 * 36 * 9 + 72 * 16 + 16 * 3
    assert pruned.parameter_count == 8 * 10 + 73 * 16 + 17 * 3
    assert exported.accuracy == pytest.approx(pruned.accuracy)
    assert quantized.accuracy == built.quality.exact
    assert quantized.on_host == built.quality.on_host
    assert exported.size_bytes is not None
    assert built.size_bytes == quantized.size_bytes
    assert built.size_bytes < exported.size_bytes
    assert trained.seconds is not None
    assert trained.accuracy == pytest.approx(built.quality.base)
