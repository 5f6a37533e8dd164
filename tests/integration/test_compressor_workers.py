"""Work over processes: the same results as in one, one clear error for a dead worker, nobody left."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from support.model_files import two_headed_samples, write_two_headed_onnx
from trimtab_compressor.arrays import digest_file
from trimtab_compressor.cli import main
from trimtab_compressor.commands.run import _collect
from trimtab_compressor.recipe import Choice
from trimtab_compressor.run_report import RunReport
from trimtab_compressor.workers import dask_cluster, local_processes
from trimtab_protocol.errors import ConfigError, ErrorCode, ModelError, TransientError
from trimtab_protocol.manifest import ModelFormat

RECIPES = ("fp32", "dynamic_w8", "static_w8a8_asym")


def run(folder: Path, out: str, *more: str) -> RunReport:
    options = ["run", str(folder / "two.onnx"), "--data", str(folder / "two.npz")]
    options += ["--out", str(folder / out), "--cache", str(folder / f"cache-{out}"), *more]
    for recipe in RECIPES:
        options += ["--recipe", recipe]
    assert main(options) == 0
    return RunReport.model_validate_json((folder / out / "results.json").read_text())


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    write_two_headed_onnx(tmp_path / "two.onnx")
    np.savez(tmp_path / "two.npz", **two_headed_samples())  # type: ignore[arg-type]
    one, two = run(tmp_path, "one"), run(tmp_path, "two", "--jobs", "2")
    assert multiprocessing.active_children() == []
    assert [row.recipe for row in one.candidates] == list(RECIPES)
    for left, right in zip(one.candidates, two.candidates, strict=True):
        assert (left.recipe, left.quality) == (right.recipe, right.quality)
        left_file, right_file = tmp_path / "one" / left.file, tmp_path / "two" / right.file
        assert digest_file(left_file) == digest_file(right_file)


def wait_for_a_dead_worker() -> None:
    with local_processes(1) as executor:
        assert executor.submit(int, "7").result() == 7
        executor.submit(os._exit, 9).result()


def test_a_dead_worker_is_one_error_with_the_remedy() -> None:
    with pytest.raises(ModelError, match=r"worker process died .* with fewer --jobs") as caught:
        wait_for_a_dead_worker()
    assert caught.value.code is ErrorCode.MODEL_CRASH
    assert multiprocessing.active_children() == []


def test_what_was_finished_before_a_worker_died_is_in_the_report(tmp_path: Path) -> None:
    choice = Choice("fp32", ModelFormat.ONNX)

    def die_after_one() -> Iterator[tuple[Choice, ModelError]]:
        yield choice, ModelError("no")
        raise ModelError("died", code=ErrorCode.MODEL_CRASH)

    with pytest.raises(ModelError, match="died"):
        _collect(die_after_one(), [choice], tmp_path, RunReport(task="x", candidates=()))
    report = RunReport.model_validate_json((tmp_path / "results.json").read_text())
    assert [row.recipe for row in report.failures] == ["fp32"]
    assert not report.is_complete


def interrupt_while_a_worker_is_busy() -> None:
    with local_processes(1) as executor:
        executor.submit(int, "7").result()
        executor.submit(time.sleep, 600)
        raise KeyboardInterrupt


def test_an_interrupted_run_leaves_no_worker_behind() -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt_while_a_worker_is_busy()
    assert multiprocessing.active_children() == []


def test_a_scheduler_that_cannot_be_asked_is_one_error() -> None:
    with (
        pytest.raises((ConfigError, TransientError), match="Dask"),
        dask_cluster("tcp://127.0.0.1:9"),
    ):
        raise AssertionError("nobody is there")
