"""Where fake quantizers go, and what a network that cannot be traced is told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from support.compressor_rig import CLASSES
from support.mobile_rig import build_mobile
from trimtab_compressor.passes.fake_quantize import Phase, Scheme
from trimtab_compressor.passes.quantized_graph import insert_quantizers
from trimtab_compressor.structure import RemovedBlock
from trimtab_protocol.errors import ModelError


def places(model: nn.Module, *, is_symmetric: bool = False) -> list[str]:
    return list(insert_quantizers(model, Scheme(is_symmetric=is_symmetric)).activations)


def test_a_mobile_block_is_rounded_where_its_file_will_be() -> None:
    assert places(build_mobile()) == [
        "input_1",
        "2",  # ReLU6 behind the stem: what is between is part of the stem
        "3.relu",
        "_3_relu_1",
        "3.project",
        "add",
        "7",  # ReLU; max-pool and dropout before its convolution keep the range of the sum
        "9",
    ]


def test_symmetric_activations_are_rounded_before_relu_too() -> None:
    found = places(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), is_symmetric=True)
    assert found == ["input_1", "0", "1"]


def test_a_value_that_others_need_too_is_rounded_before_its_relu() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.conv(x)
            return torch.relu(found) + found

    assert places(Forked()) == ["x", "conv", "relu", "add"]


def test_codes_of_a_look_up_are_not_rounded_but_what_it_finds_is() -> None:
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vectors = nn.Embedding(50, 8)
            self.dense = nn.Linear(8, 3)

        def forward(self, codes: Tensor) -> Tensor:
            found: Tensor = self.dense(self.vectors(codes.long()).mean(dim=1))
            return found

    graph = insert_quantizers(Text(), Scheme())
    assert list(graph.activations) == ["vectors", "mean", "dense"]
    graph.module(torch.full((2, 4), 49.0))


def test_an_activation_that_stays_float_is_rounded_where_integers_follow() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Flatten(), nn.Linear(4, 3), nn.Softmax(1))
    assert places(model) == ["input_1", "0", "1", "3"]


def test_parameters_are_shared_and_the_network_is_left_as_it_is() -> None:
    model = build_mobile()
    names = [name for name, _ in model.named_modules()]
    graph = insert_quantizers(model, Scheme())
    inside = {id(row) for row in graph.module.parameters()}
    assert all(id(row) in inside for row in model.parameters())
    assert [name for name, _ in model.named_modules()] == names


def test_before_rounding_the_graph_computes_the_network() -> None:
    torch.manual_seed(0)
    model = build_mobile().eval()
    graph = insert_quantizers(model, Scheme())
    x = torch.randn(4, 1, 8, 8)
    assert torch.allclose(graph.module(x), model(x), atol=1e-5)
    graph.enter(Phase.ROUND)
    assert not torch.equal(graph.module(x), model(x))
    graph.enter(Phase.FLOAT)
    assert torch.allclose(graph.module(x), model(x), atol=1e-5)


def test_a_layer_that_is_used_twice_keeps_its_norm_apart() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)
            self.norm = nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.conv(self.norm(self.conv(x)))
            return found

    model = Twice().eval()
    graph = insert_quantizers(model, Scheme())
    assert graph.layers["conv"].norm is None
    x = torch.randn(3, 2, 4, 4)
    assert torch.allclose(graph.module(x), model(x), atol=1e-6)


def test_freezing_reaches_norms_that_stand_alone() -> None:
    graph = insert_quantizers(nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3)), Scheme())
    graph.module.train()
    graph.freeze()
    norm = graph.module.get_submodule("0")
    assert not norm.training


def test_a_place_where_a_block_was_removed_is_passed() -> None:
    assert places(nn.Sequential(nn.Conv2d(1, 2, 3), RemovedBlock(), nn.ReLU())) == ["input_1", "2"]


class Gate(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if bool(x.sum() > 0) else x


def test_a_module_that_cannot_be_traced_is_named() -> None:
    model = nn.Sequential(nn.Linear(64, CLASSES), nn.Sequential(nn.ReLU(), Gate()))
    with pytest.raises(ModelError, match=r"module 1\.1 \(Gate\) cannot be traced.*take decisions"):
        insert_quantizers(model, Scheme())


def test_a_network_that_is_itself_the_gate_is_named_too() -> None:
    with pytest.raises(ModelError, match=r"the network itself \(Gate\)"):
        insert_quantizers(Gate(), Scheme())


def test_a_network_without_weights_to_round_is_refused() -> None:
    with pytest.raises(ModelError, match="no convolution and no dense layer"):
        insert_quantizers(nn.Sequential(nn.Flatten(), nn.ReLU()), Scheme())
