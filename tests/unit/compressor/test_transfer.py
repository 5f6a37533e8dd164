"""Transfer, on a task that learns in a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from support.compressor_rig import CLASSES, a_task, build_tiny, draw_samples, trained_tiny
from support.networks import accuracy, make_stage, same_weights
from trimtab_compressor.checkpoint import load_checkpoint, save_checkpoint
from trimtab_compressor.heads import MlpHead, find_head
from trimtab_compressor.network import new_network
from trimtab_compressor.passes.stage import NetworkSpecT, NetworkStage
from trimtab_compressor.passes.train import train_base
from trimtab_compressor.passes.transfer import copy_layers
from trimtab_compressor.passes.transfer_features import compute_features, transfer_features
from trimtab_compressor.passes.transfer_finetune import (
    divide_layers,
    group_parameters,
    transfer_finetune,
    unfreeze_gradually,
)
from trimtab_compressor.specs.transfer import TransferFeatures, TransferFinetune
from trimtab_compressor.task import Samples, Task, Training
from trimtab_protocol.errors import ConfigError

FEW = 4
SOURCE = """
from support.compressor_rig import a_task
TASK = a_task(name="source")
"""


def draw_noisy(count: int, seed: int) -> Samples:
    """Bars that one cannot see in a single place: what to look for must be learned from many."""
    drawn = draw_samples(count, seed)
    noise = np.random.default_rng(seed).normal(0, 1.2, drawn.inputs.shape)
    return Samples((drawn.inputs + noise).astype(np.float32), drawn.labels)


def rename_classes(samples: Samples) -> Samples:
    """The same pictures under other names."""
    return Samples(samples.inputs, (samples.labels + 1) % CLASSES)


@pytest.fixture(scope="module")
def few() -> Task:
    """Four labels per class, of the source's pictures under other names."""
    drawn = draw_noisy(100, seed=21)
    rows = np.concatenate([np.flatnonzero(drawn.labels == row)[:FEW] for row in range(CLASSES)])
    return a_task(
        name="few",
        train=rename_classes(Samples(drawn.inputs[rows], drawn.labels[rows])),
        test=rename_classes(draw_noisy(120, seed=22)),
        training=Training(epochs=12, batch=3, learning_rate=3e-2, fine_tune_learning_rate=3e-2),
    )


@pytest.fixture(scope="module")
def source() -> nn.Module:
    """What the source task's base learns from many labels; trained once for all tests."""
    return trained_tiny(a_task(train=draw_noisy(1500, seed=1)))


@pytest.fixture
def source_file(tmp_path: Path) -> str:
    path = tmp_path / "source.py"
    path.write_text(SOURCE)
    return str(path)


def fresh_stage(spec: NetworkSpecT, task: Task, source: nn.Module) -> NetworkStage[NetworkSpecT]:
    """The first stage of a recipe, whose builder has the source's base at hand."""
    new = new_network(task, 1.0)
    asked: list[str] = []

    def give(of: Task, width: float) -> nn.Module:
        asked.append(of.name)
        assert (of.name, width) == ("source", 1.0)
        return source

    return NetworkStage(spec=spec, task=task, model=new, base=new, train_base=give)


def test_a_new_head_on_frozen_layers_beats_training_from_nothing_on_few_labels(
    few: Task, source: nn.Module, source_file: str
) -> None:
    spec = TransferFeatures(source_task=source_file)
    made = transfer_features(fresh_stage(spec, few, source))
    assert accuracy(made.module, few) >= accuracy(train_base(few, 1.0), few) + 0.1
    assert made.findings["source"] == "source"
    assert made.findings["features"] == 32
    for name, row in made.module.state_dict().items():
        assert torch.equal(row, source.state_dict()[name]) == (not name.startswith("6."))


def test_fine_tuning_beats_training_from_nothing_on_few_labels(
    few: Task, source: nn.Module, source_file: str
) -> None:
    spec = TransferFinetune(source_task=source_file, epochs_per_stage=4, rate_decay=0.1)
    made = transfer_finetune(fresh_stage(spec, few, source))
    assert accuracy(made.module, few) >= accuracy(train_base(few, 1.0), few) + 0.1
    assert made.findings["stages"] == 3
    assert all(row.requires_grad for row in made.module.parameters())
    assert not torch.equal(made.module.state_dict()["0.weight"], source.state_dict()["0.weight"])


def test_a_small_network_as_head_comes_back_from_its_checkpoint(
    few: Task, source: nn.Module, source_file: str, tmp_path: Path
) -> None:
    spec = TransferFeatures(source_task=source_file, hidden=8)
    made = transfer_features(fresh_stage(spec, few, source))
    assert isinstance(made.module.get_submodule("6"), MlpHead)
    assert accuracy(made.module, few) >= 0.9
    save_checkpoint(made.module, made.width, tmp_path / "net.pt")
    again, _ = load_checkpoint(few, tmp_path / "net.pt")
    assert same_weights(again, made.module)
    assert accuracy(again, few) == accuracy(made.module, few)


def test_fine_tuning_goes_on_where_features_ended(
    few: Task, source: nn.Module, source_file: str
) -> None:
    first = transfer_features(fresh_stage(TransferFeatures(source_task=source_file), few, source))
    stage = make_stage(TransferFinetune(rate_decay=0.1), few, first.module)
    made = transfer_finetune(stage)
    assert made.module is stage.model
    assert accuracy(made.module, few) >= 0.9


def test_without_a_source_the_network_counts_as_pretrained(few: Task, source: nn.Module) -> None:
    made = transfer_features(make_stage(TransferFeatures(), few, source))
    assert accuracy(made.module, few) >= 0.9
    assert torch.equal(made.module.state_dict()["0.weight"], source.state_dict()["0.weight"])


def test_a_source_that_does_not_exist_is_named(few: Task, source: nn.Module) -> None:
    spec = TransferFeatures(source_task="nowhere.py")
    with pytest.raises(ConfigError, match=r"nowhere\.py does not exist"):
        transfer_features(fresh_stage(spec, few, source))


def test_layers_are_copied_all_but_the_head() -> None:
    one, other = build_tiny(), build_tiny()
    copy_layers(one, "6", other, "6")
    for name, row in other.state_dict().items():
        assert torch.equal(row, one.state_dict()[name]) == (not name.startswith("6."))


def test_networks_that_differ_in_more_than_the_head_are_refused_with_the_place() -> None:
    with pytest.raises(ConfigError, match=r"a tensor of shape \[8, 1, 3, 3\] at '0.weight'"):
        copy_layers(build_tiny(0.5), "6", build_tiny(), "6")
    deeper = nn.Sequential(*build_tiny()[:6], nn.Linear(32, 32), nn.Linear(32, CLASSES))  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"nothing at '6.weight', this task's has a tensor"):
        copy_layers(build_tiny(), "6", deeper, "7")
    with pytest.raises(ConfigError, match=r"at '6.weight', this task's has nothing"):
        copy_layers(deeper, "7", build_tiny(), "6")


class Scaled(nn.Module):
    """Does something after its last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = build_tiny()

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.layers(inputs)
        return 2 * found


def test_a_network_that_goes_on_after_its_head_can_only_be_fine_tuned(few: Task) -> None:
    model = Scaled()
    with pytest.raises(ConfigError, match=r"does more after its last layer.*use transfer_finetune"):
        compute_features(model, model.get_submodule("layers.6"), few)


def test_a_hidden_layer_needs_a_dense_head(source: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(1, CLASSES, 8), nn.Flatten())
    with pytest.raises(ConfigError, match="the last layer is a Conv2d"):
        transfer_features(make_stage(TransferFeatures(hidden=4), a_task(), model))


def test_a_network_without_a_head_is_refused() -> None:
    with pytest.raises(ConfigError, match="no dense or convolution layer with 5 outputs"):
        find_head(build_tiny(), 5)


def with_normalisation() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(128, CLASSES),
    )


def test_stages_begin_with_the_head_and_keep_normalisation_with_its_layer() -> None:
    model = with_normalisation()
    stages = divide_layers(model, "5", 3, a_task())
    assert [[list(model).index(row) for row in stage] for stage in stages] == [[5], [2, 3], [0, 1]]  # type: ignore[call-overload]
    [whole] = divide_layers(model, "5", 1, a_task())
    assert len(whole) == 5
    with pytest.raises(ConfigError, match="4 stages of a network with 3 layers"):
        divide_layers(model, "5", 4, a_task())


class Backwards(nn.Module):
    """Runs its layers against the order in which they are defined."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, CLASSES)
        self.second = nn.Linear(16, 16)
        self.first = nn.Linear(64, 16)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.head(self.second(self.first(inputs.flatten(1) * self.scale)))
        return found


def test_depth_is_the_order_in_which_layers_run() -> None:
    model = Backwards()
    stages = divide_layers(model, "head", 3, a_task())
    assert stages == [[model.head], [model.second], [model, model.first]]


def test_stages_wake_one_after_the_other_and_sleeping_statistics_stay() -> None:
    model = with_normalisation()
    stages = divide_layers(model, "5", 3, a_task())
    begin = unfreeze_gradually(stages, epochs_per_stage=2)
    awake = []
    for epoch in range(5):
        begin(epoch)
        awake.append([row[0].training for row in stages])
        learning = [next(row[0].parameters()).requires_grad for row in stages]
        assert learning == awake[-1]
    asleep, all_awake = [True, False, False], [True, True, True]
    assert awake == [asleep, asleep, [True, True, False], [True, True, False], all_awake]
    begin(0)
    before = model[1].running_mean.clone()  # type: ignore[index]
    model(torch.randn(4, 1, 8, 8))
    assert torch.equal(model[1].running_mean, before)  # type: ignore[index]


def test_a_module_with_weights_of_its_own_does_not_put_what_is_inside_to_sleep() -> None:
    model = Backwards()
    unfreeze_gradually(divide_layers(model, "head", 3, a_task()), epochs_per_stage=1)(0)
    assert model.head.training
    assert not model.training


def test_each_stage_learns_slower_than_the_one_above() -> None:
    model = with_normalisation()
    groups = group_parameters(divide_layers(model, "5", 3, a_task()), 0.5)
    assert [row.rate_ratio for row in groups] == [1.0, 0.5, 0.25]
    assert sum(len(row.parameters) for row in groups) == len(list(model.parameters()))


def test_shared_weights_are_learned_once() -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, CLASSES)
    )
    model[1].weight = model[2].weight
    groups = group_parameters(divide_layers(model, "3", 3, a_task()), 0.5)
    assert [len(row.parameters) for row in groups] == [2, 2, 1]


def test_rates_and_sleep_reach_the_weights(few: Task, source: nn.Module) -> None:
    """Two epochs, one per stage: the lower stage moves less, and not in the first."""
    task = replace(few, training=Training(epochs=2, batch=9, fine_tune_learning_rate=1e-3))

    def moved(decay: float) -> list[float]:
        spec = TransferFinetune(stages=2, rate_decay=decay)
        made = transfer_finetune(make_stage(spec, task, source)).module.state_dict()
        before = source.state_dict()
        return [
            float((made[f"{row}.weight"] - before[f"{row}.weight"]).abs().max()) for row in (0, 6)
        ]

    slow, fast = moved(0.01), moved(1.0)
    assert 0 < slow[0] < 0.1 * fast[0]
    assert slow[1] == pytest.approx(fast[1], rel=0.5)


def test_stages_that_would_never_wake_are_refused(few: Task, source: nn.Module) -> None:
    spec = TransferFinetune(stages=3, epochs_per_stage=6)
    with pytest.raises(ConfigError, match=r"would begin after 12 epochs, training.epochs is 12"):
        transfer_finetune(make_stage(spec, few, source))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: TransferFeatures(hidden=-1), "hidden is -1; give 0 or more"),
        (lambda: TransferFeatures(source_task=""), "source_task is ''; give the path"),
        (lambda: TransferFinetune(stages=0), "stages is 0; give at least 1"),
        (lambda: TransferFinetune(epochs_per_stage=-1), "epochs_per_stage is -1"),
        (lambda: TransferFinetune(rate_decay=0.0), "rate_decay is 0.0"),
        (lambda: TransferFinetune(rate_decay=1.5), "rate_decay is 1.5"),
    ],
)
def test_specs_refuse_what_trains_nothing(build: type, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build()


def test_specs_name_the_files_that_they_depend_on() -> None:
    assert TransferFeatures(source_task="a.py").task_files() == ("a.py",)
    assert TransferFinetune().task_files() == ()
