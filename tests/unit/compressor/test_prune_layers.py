"""Removal of whole residual blocks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from support.compressor_rig import a_task, trained_tiny
from support.pruning_rig import residual_task, stage_of, trained_residual
from trimtab_compressor.agreement import top1_accuracy
from trimtab_compressor.checkpoint import load_checkpoint, save_checkpoint
from trimtab_compressor.passes.prune_blocks import find_blocks
from trimtab_compressor.passes.prune_channels import prune_channels
from trimtab_compressor.passes.prune_layers import prune_layers, rank_blocks
from trimtab_compressor.passes.stage import Network
from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.specs.pruning import PruneChannels, PruneLayers
from trimtab_compressor.structure import removed_blocks
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError, ModelError

BLOCKS = ["blocks.0", "blocks.2", "last.1"]


def prune(task: Task, base: nn.Module, **changes: object) -> Network:
    return prune_layers(stage_of(PruneLayers(**changes), task, base))  # type: ignore[arg-type]


def accuracy(model: nn.Module, task: Task) -> float:
    return top1_accuracy(predict(model, task.test.inputs).numpy(), task.test.labels)


def test_residual_blocks_are_found_by_what_they_do() -> None:
    task, base = residual_task(), trained_residual()
    before = {name: row.clone() for name, row in base.state_dict().items()}
    assert find_blocks(base, task) == BLOCKS
    assert all(torch.equal(row, before[name]) for name, row in base.state_dict().items())
    assert find_blocks(base, residual_task(ignored_layers=("blocks.0",))) == BLOCKS[1:]


def test_a_network_without_residual_blocks_is_an_error() -> None:
    task = a_task()
    with pytest.raises(ModelError, match=r"no residual block.*prune_channels"):
        prune(task, trained_tiny(task))


def test_the_block_that_is_missed_least_goes_first() -> None:
    task, base = residual_task(), trained_residual()
    layers = dict(base.named_modules())
    with torch.no_grad():  # this block adds nothing, so nothing misses it
        for row in layers["blocks.2"].parameters():
            row.zero_()
    drops = rank_blocks(base, BLOCKS, task, 200)
    assert list(drops.values()) == sorted(drops.values())
    assert drops["blocks.2"] == 0
    assert drops["blocks.0"] > 5
    made = prune(task, base, names=("blocks.0", "blocks.2"), is_fine_tuned=False)
    assert made.findings["removed"] == "blocks.2"
    expected = predict(base, task.test.inputs)
    assert torch.allclose(predict(made.module, task.test.inputs), expected, atol=1e-5)


def test_several_blocks_go_one_by_one_and_the_network_still_answers(tmp_path: Path) -> None:
    task, base = residual_task(), trained_residual()
    made = prune(task, base, blocks=2)
    gone = str(made.findings["removed"]).split(", ")
    assert len(gone) == 2
    assert set(gone) == set(removed_blocks(made.module)) < set(BLOCKS)
    assert accuracy(made.module, task) >= 0.9
    macs, before = made.findings["macs"], made.findings["macs_before"]
    assert isinstance(macs, int)
    assert isinstance(before, int)
    assert macs < before
    assert made.findings["blocks_found"] == 3
    save_checkpoint(made.module, 1.0, tmp_path / "net.pt")
    again, _ = load_checkpoint(task, tmp_path / "net.pt")
    assert removed_blocks(again) == removed_blocks(made.module)
    expected = predict(made.module, task.test.inputs)
    assert torch.equal(predict(again, task.test.inputs), expected)


def test_channels_can_go_after_blocks_and_both_come_back(tmp_path: Path) -> None:
    task, base = residual_task(), trained_residual()
    shallow = prune(task, base, is_fine_tuned=False).module
    made = prune_channels(stage_of(PruneChannels(ratio=0.5, round_to=4), task, shallow)).module
    save_checkpoint(made, 1.0, tmp_path / "net.pt")
    again, _ = load_checkpoint(task, tmp_path / "net.pt")
    expected = predict(made, task.test.inputs)
    assert torch.equal(predict(again, task.test.inputs), expected)
    assert accuracy(made, task) >= 0.9


def test_more_blocks_than_there_are_take_all() -> None:
    made = prune(residual_task(), trained_residual(), blocks=9, is_fine_tuned=False)
    assert made.findings["steps_kept"] == 3


def test_named_blocks_are_taken_even_where_they_are_not_residual() -> None:
    task, base = residual_task(), trained_residual()
    made = prune(task, base, names=("blocks.0.body.3",), is_fine_tuned=False)
    assert removed_blocks(made.module) == ["blocks.0.body.3"]


@pytest.mark.parametrize(
    ("name", "said"),
    [("neck", "which the network has not; its modules are stem"), ("blocks.1", "shaped unlike")],
)
def test_a_named_block_that_cannot_go_is_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        prune(residual_task(), trained_residual(), names=(name,))


def test_a_removal_that_costs_too_much_is_taken_back() -> None:
    task, base = residual_task(), trained_residual()
    with pytest.raises(ModelError, match="not even the first step"):
        prune(task, base, names=("blocks.0",), max_drop=5.0, is_fine_tuned=False)
    made = prune(task, base, blocks=3, max_drop=5.0, is_fine_tuned=False)
    assert 0 < int(str(made.findings["steps_kept"])) < 3
    assert "blocks.0" not in removed_blocks(made.module)
    assert "without blocks.0 " in str(made.findings["stopped"])


def test_nonsense_is_refused() -> None:
    for given in ({"blocks": 0}, {"samples": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            PruneLayers(**given)  # type: ignore[arg-type]
