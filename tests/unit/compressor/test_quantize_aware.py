"""Quantization-aware training on a tiny task."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from support.compressor_rig import CLASSES, a_task
from support.mobile_rig import build_mobile
from trimtab_compressor.checkpoint import load_checkpoint, load_ranges, save_checkpoint
from trimtab_compressor.passes.fake_quantize import Scheme
from trimtab_compressor.passes.prune_channels import prune_channels
from trimtab_compressor.passes.quantize_aware import freeze_late, quantize_aware
from trimtab_compressor.passes.quantized_graph import insert_quantizers
from trimtab_compressor.passes.stage import Network, NetworkStage
from trimtab_compressor.passes.train import train
from trimtab_compressor.passes.training_loop import predict
from trimtab_compressor.specs.pruning import PruneChannels
from trimtab_compressor.specs.quantize_aware import QuantizeAware
from trimtab_compressor.specs.table import read_spec
from trimtab_compressor.specs.training import Train
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError, ModelError


@pytest.fixture(scope="module")
def task() -> Task:
    torch.set_num_threads(1)
    return a_task(build_model=build_mobile)


@pytest.fixture(scope="module")
def trained(task: Task) -> nn.Module:
    torch.manual_seed(0)
    model = build_mobile()
    return train(NetworkStage(spec=Train(), task=task, model=model, base=model)).module


@pytest.fixture
def model(trained: nn.Module) -> nn.Module:
    return copy.deepcopy(trained)


def run(task: Task, model: nn.Module, base: nn.Module | None = None, **given: object) -> Network:
    spec = QuantizeAware(**{"epochs": 1, **given})  # type: ignore[arg-type]
    return quantize_aware(NetworkStage(spec=spec, task=task, model=model, base=base or model))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"activation_ranges": "moving_average"},
        {"is_symmetric": True, "is_per_channel": False, "is_range_reduced": True},
        {"teacher": "base"},
        {"teacher": "base", "teacher_loss": "decoupled", "teacher_weight": 2.0},
    ],
    ids=str,
)
def test_a_trained_network_stays_one_and_says_what_it_reached_while_rounded(
    task: Task, model: nn.Module, given: dict[str, object]
) -> None:
    before = copy.deepcopy(model.state_dict())
    made = run(task, model, copy.deepcopy(model), **given)
    assert made.module is model
    assert not made.module.training
    assert set(made.module.state_dict()) == set(before), "nothing of the quantizers stays"
    changed = [not torch.equal(before[name], row) for name, row in model.state_dict().items()]
    assert any(changed)
    assert float(made.findings["fake_quantized_accuracy"] or 0) >= 0.95
    assert len(made.ranges) >= 8


def test_the_ranges_are_those_of_the_network_and_come_back_from_its_checkpoint(
    task: Task, model: nn.Module, tmp_path: Path
) -> None:
    made = run(task, model)
    by_name = {row.name: row for row in made.ranges}
    assert by_name["input_1"].fingerprint.size == 64
    seen = predict(made.module, task.calibration[:8])
    assert by_name["9"].fingerprint.low == pytest.approx(float(seen.min()), rel=1e-3)
    assert by_name["2"].low == 0.0
    assert 0 < by_name["2"].high <= 6.0
    save_checkpoint(made.module, 1.0, tmp_path / "net.pt", made.ranges)
    assert load_ranges(tmp_path / "net.pt") == made.ranges
    again, _ = load_checkpoint(task, tmp_path / "net.pt")
    expected = predict(made.module, task.test.inputs)
    assert torch.equal(predict(again, task.test.inputs), expected)


def test_the_same_seed_gives_the_same_network(task: Task, trained: nn.Module) -> None:
    first, second = (run(task, copy.deepcopy(trained)) for _ in range(2))
    one, other = (predict(row.module, task.test.inputs) for row in (first, second))
    assert torch.equal(one, other)
    assert first.ranges == second.ranges


def test_a_pruned_network_is_trained_in_its_own_shape(task: Task, model: nn.Module) -> None:
    spec = PruneChannels(ratio=0.5, round_to=2, is_fine_tuned=False)
    small = prune_channels(NetworkStage(spec=spec, task=task, model=model, base=model)).module
    assert isinstance(small, nn.Sequential)
    width = small[0].out_channels
    made = run(task, small, epochs=3, learning_rate_factor=2.0)
    assert width == 4
    assert made.module.get_submodule("0").out_channels == width
    assert float(made.findings["fake_quantized_accuracy"] or 0) >= 0.8


def test_the_base_teaches_only_where_it_is_asked_to(task: Task, trained: nn.Module) -> None:
    liar = copy.deepcopy(trained)
    nn.init.zeros_(liar.get_submodule("9").weight)  # type: ignore[arg-type]
    liar.get_submodule("9").bias.data = torch.tensor([50.0, 0.0, 0.0])
    alone = run(task, copy.deepcopy(trained), liar)
    taught = run(task, copy.deepcopy(trained), liar, teacher="base", teacher_weight=1.0)
    lie, truth = (
        float(predict(row.module, task.test.inputs).softmax(dim=1)[:, 0].mean())
        for row in (taught, alone)
    )
    assert truth < 0.5
    assert lie > truth + 0.1


def test_late_in_training_everything_is_frozen() -> None:
    graph = insert_quantizers(build_mobile(), Scheme())
    after_step = freeze_late(graph, 0.5)
    after_step(4, 10)
    assert not any(row.is_frozen for row in [*graph.layers.values(), *graph.activations.values()])
    after_step(5, 10)
    assert all(row.is_frozen for row in [*graph.layers.values(), *graph.activations.values()])


def test_a_network_that_tracing_gets_wrong_is_refused(task: Task) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(64, CLASSES)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            found: Tensor = self.dense(x.flatten(1)) * self.calls
            return found

    with pytest.raises(ModelError, match="does not compute what the network computes"):
        run(task, Counting())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 0}, "epochs is 0; give at least 1"),
        ({"learning_rate_factor": 0.0}, "learning_rate_factor is 0.0; it must be above 0"),
        ({"freeze_from": 1.5}, "freeze_from is 1.5; it must lie between 0 and 1"),
        ({"temperature": 0}, "temperature is 0; it must be above 0"),
        ({"teacher_weight": -1.0}, "teacher_weight is -1.0; it cannot be negative"),
        ({"teacher_weight": 2.0}, "teacher_weight is 2.0; as a share"),
        ({"is_weight_unsigned": True, "is_symmetric": True}, "leave out is_symmetric"),
        ({"activation_ranges": "minmax"}, "must be 'learned' or 'moving_average'"),
        ({"teacher": "file"}, "must be 'none' or 'base'"),
    ],
)
def test_parameters_that_cannot_train_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_spec("quantize_aware", given)
