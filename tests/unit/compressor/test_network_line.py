"""Steps over a network: what their keys depend on, and what is trained only once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.compressor_rig import a_task
from support.networks import same_weights
from trimtab_compressor.cache import Cache
from trimtab_compressor.checkpoint import load_checkpoint
from trimtab_compressor.network_line import NetworkLine
from trimtab_compressor.passes.train import train_base
from trimtab_compressor.results import path_of, read_note
from trimtab_compressor.specs.base import NetworkSpec
from trimtab_compressor.specs.distillation import Distill
from trimtab_compressor.specs.training import Train
from trimtab_compressor.specs.transfer import TransferFeatures, TransferFinetune
from trimtab_compressor.task import Training
from trimtab_protocol.errors import ConfigError

SOURCE = """
from support.compressor_rig import a_task
from trimtab_compressor.task import Training
TASK = a_task(name="source", training=Training(epochs={epochs}, batch=32, learning_rate=5e-3))
"""
BRIEF = Training(epochs=2, distill_epochs=1, batch=32, learning_rate=5e-3)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    torch.set_num_threads(1)
    return Cache(tmp_path / "cache")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.py"
    path.write_text(SOURCE.format(epochs=1))
    return path


def key_of(cache: Cache, *specs: NetworkSpec) -> str:
    return NetworkLine(a_task(training=BRIEF), cache).points(specs)[-1].result.key


def networks_in(cache: Cache) -> int:
    return len(list(cache.root.rglob("*.pt")))


def test_a_step_depends_on_what_is_in_the_teachers_file(cache: Cache, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.onnx"
    spec = Distill(teacher_files=(str(teacher),))
    teacher.write_bytes(b"one")
    before = key_of(cache, Train(), spec)
    assert key_of(cache, Train(), spec) == before
    teacher.write_bytes(b"other")
    assert key_of(cache, Train(), spec) != before


def test_a_teacher_that_does_not_exist_is_missed_before_anything_is_computed(cache: Cache) -> None:
    with pytest.raises(
        ConfigError, match=r"distill: gone\.onnx does not exist; give a path as seen"
    ):
        key_of(cache, Train(), Distill(teacher_files=("gone.onnx",)))


def test_a_step_depends_on_how_its_source_is_trained(cache: Cache, source: Path) -> None:
    spec = TransferFeatures(source_task=str(source))
    before = key_of(cache, spec)
    assert key_of(cache, spec) == before
    source.write_text(SOURCE.format(epochs=2))
    assert key_of(cache, spec) != before


def test_recipes_that_begin_with_transfer_share_the_source_and_later_passes_follow(
    cache: Cache, source: Path
) -> None:
    task = a_task(training=BRIEF)
    line = NetworkLine(task, cache)
    first = TransferFeatures(source_task=str(source), hidden=8)
    for specs in ((first, Distill()), (TransferFinetune(source_task=str(source), stages=2),)):
        for point in line.points(specs):
            path = cache.get_or_make(point.result.key, point.result.suffix, point.result.make)
            load_checkpoint(task, path)
    assert networks_in(cache) == 4  # the source, and three passes
    note = read_note(cache, line.points((first,))[0].result.key)
    assert note["findings"]["source"] == "source"


def test_the_teacher_after_a_transfer_is_what_was_transferred(cache: Cache, source: Path) -> None:
    task = a_task(training=BRIEF)
    line = NetworkLine(task, cache)
    specs = (TransferFeatures(source_task=str(source)), Distill(width=0.5))
    first, last = line.points(specs)
    path = cache.get_or_make(first.result.key, first.result.suffix, first.result.make)
    stage = line._stage(specs)
    assert same_weights(stage.base, load_checkpoint(task, path)[0])
    assert path_of(cache, last.result) != path


def test_a_base_of_another_width_or_seed_is_trained_once(cache: Cache) -> None:
    task = a_task(training=BRIEF)
    line = NetworkLine(task, cache)
    wide = line.train_base(task, 2.0)
    assert networks_in(cache) == 1
    assert same_weights(line.train_base(task, 2.0), wide)
    assert same_weights(wide, train_base(task, 2.0))
    other = a_task(training=Training(epochs=1, batch=32, seed=7))
    line.train_base(other, 1.0)
    line.train_base(task, 1.0)
    assert networks_in(cache) == 3


def test_the_base_that_a_recipe_made_serves_as_a_teacher(cache: Cache) -> None:
    task = a_task(training=BRIEF)
    line = NetworkLine(task, cache)
    [point] = line.points((Train(),))
    cache.get_or_make(point.result.key, point.result.suffix, point.result.make)
    line.train_base(task, 1.0)
    assert networks_in(cache) == 1
