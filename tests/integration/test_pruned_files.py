"""Pruned networks through export, ONNX Runtime and LiteRT, and in what `run` says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from support.compressor_rig import CLASSES, a_task
from support.pruning_rig import residual_task, stage_of, trained_residual
from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.build import Built
from trimtab_compressor.compressed import compressed_bytes
from trimtab_compressor.export.table import EXPORTERS
from trimtab_compressor.passes.prune_channels import prune_channels
from trimtab_compressor.passes.prune_layers import prune_layers
from trimtab_compressor.passes.prune_weights import NOTE, prune_weights
from trimtab_compressor.passes.stage import Network
from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.recipes import Choice
from trimtab_compressor.run_report import CandidateResult, RunReport
from trimtab_compressor.runtimes.port import Kernels, fit_samples, run_all
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.show import print_built
from trimtab_compressor.specs.pruning import PruneChannels, PruneLayers, PruneWeights
from trimtab_compressor.task import Task
from trimtab_protocol.manifest import ModelFormat, PassRecord, Quality


@pytest.fixture(scope="module")
def task() -> Task:
    return residual_task()


@pytest.fixture(scope="module")
def pruned(task: Task) -> Network:
    """Without a block, at half of its channels, with a third of what is left."""
    base = trained_residual()
    shallow = prune_layers(stage_of(PruneLayers(is_fine_tuned=False), task, base)).module
    spec = PruneChannels(ratio=0.5, round_to=4, is_fine_tuned=False)
    narrow = prune_channels(stage_of(spec, task, shallow)).module
    last = PruneWeights(ratio=0.66, is_last_pruned=True, min_layer_weights=64)
    return prune_weights(stage_of(last, task, narrow))


def outputs_of(path: Path, task: Task) -> AnyArray:
    runner = open_model(path, Kernels.DEFAULT)
    samples = fit_samples(runner.io, task.test.inputs, what="samples")
    return run_all(runner, samples)[runner.io.outputs[0].name]


@pytest.mark.parametrize("model_format", list(ModelFormat))
def test_a_file_computes_what_the_pruned_network_computes(
    model_format: ModelFormat, pruned: Network, task: Task, tmp_path: Path
) -> None:
    path = tmp_path / f"net.{model_format.value}"
    EXPORTERS[model_format](pruned.module, task.input_shape, path)
    expected = predict(pruned.module, task.test.inputs).numpy()
    assert np.abs(outputs_of(path, task) - expected).max() < 1e-4
    if model_format is ModelFormat.ONNX:
        check_zeros(path)


def check_zeros(path: Path) -> None:
    """The zeros are in the file, and a compressor finds them."""
    weights = [numpy_helper.to_array(row) for row in onnx.load(path).graph.initializer]
    head = next(row for row in weights if row.ndim == 2 and CLASSES in row.shape)
    assert (head == 0).mean() == pytest.approx(0.66, abs=0.01)
    dense = np.where(head == 0, np.random.default_rng(0).normal(size=head.shape), head)
    assert compressed_bytes(head.tobytes()) < 0.6 * compressed_bytes(
        dense.astype(np.float32).tobytes()
    )


def test_people_are_told_that_pruned_weights_are_not_faster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sparse.onnx"
    path.write_bytes(bytes(100_000))
    built = Built(
        choice=Choice("sparse80", ModelFormat.ONNX),
        path=path,
        size_bytes=100_000,
        quality=Quality(samples=10, exact=0.9, on_host=0.9, base=0.9),
        passes=(PassRecord(name="prune_weights", findings={"note": NOTE}),),
        base_sha256=None,
        seconds=0.0,
    )
    result = CandidateResult.of(built, path.name)
    assert result.compressed_bytes < 1000
    print_built(RunReport(task=a_task().name, candidates=(result,)))
    said = capsys.readouterr().out
    assert "zlib bytes" in said
    assert f"sparse80 (onnx): {NOTE}" in said
