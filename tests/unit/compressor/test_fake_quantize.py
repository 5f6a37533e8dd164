"""Fake quantization: the values that integers can take, and the gradients of bounds."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trimtab_compressor.passes.fake_quantize import (
    ActivationQuantizer,
    BatchNorm,
    Phase,
    QuantizedLayer,
    Scheme,
    WeightLayer,
    round_to_range,
    round_weight,
)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, requires_grad=True)


def test_values_are_those_of_quantize_and_dequantize() -> None:
    x = torch.linspace(-3, 5, 1001)
    low, high, steps = -1.5, 3.1, 255
    scale = np.float32((high - low) / steps)
    zero = np.rint(-low / scale)
    integers = np.clip(np.rint(x.numpy() / scale) + zero, 0, steps)
    found = round_to_range(x, torch.tensor(low), torch.tensor(high), steps)
    assert np.allclose(found.numpy(), (integers - zero) * scale, atol=1e-6)
    assert len(np.unique(found.numpy())) == steps + 1
    assert 0.0 in found


def test_zero_is_exact_whatever_the_range() -> None:
    for low in (-0.3, -1.7, -2.22):
        found = round_to_range(torch.zeros(3), torch.tensor(low), torch.tensor(0.9), 255)
        assert torch.equal(found, torch.zeros(3))


def test_the_gradient_passes_inside_the_range_only() -> None:
    x = torch.tensor([-2.0, 0.3, 5.0], requires_grad=True)
    round_to_range(x, scalar(-1.0), scalar(2.0), 255).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 0.0]


def test_what_is_cut_off_moves_its_bound() -> None:
    low, high = scalar(-1.0), scalar(2.0)
    weights = torch.tensor([3.0, 5.0])
    loss = (round_to_range(torch.tensor([-9.0, 9.0]), low, high, 255) * weights).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert low.grad is not None
    assert high.grad is not None
    assert (float(low.grad), float(high.grad)) == (3.0, 5.0)


def test_inside_a_bound_gets_the_gradient_of_the_step() -> None:
    low, high, steps = scalar(0.0), scalar(2.55), 255
    x = torch.tensor([0.5041])  # rounds to 0.50
    round_to_range(x, low, high, steps).sum().backward()  # type: ignore[no-untyped-call]
    assert low.grad is not None
    assert high.grad is not None
    by_step = (0.50 - 0.5041) / 0.01
    assert float(high.grad) == pytest.approx(by_step / steps, rel=1e-2)
    assert float(low.grad) == pytest.approx(-by_step / steps, rel=1e-2)


def test_weights_have_the_largest_magnitude_of_their_channel_as_bound() -> None:
    weight = torch.tensor([[1.0, -0.501, 0.0], [100.0, 0.3, -50.0], [0.0, 0.0, 0.0]])
    alone = round_weight(weight, Scheme())
    assert alone[0, 0] == 1.0
    assert float(alone[0, 1]) == pytest.approx(-64 / 127)
    assert float(alone[1, 1]) == 0.0
    assert not alone[2].any()
    together = round_weight(weight, Scheme(is_per_channel=False))
    assert float(together[0, 0]) == pytest.approx(100 / 127)
    seven_bits = round_weight(torch.linspace(-1, 1, 999)[None], Scheme(is_range_reduced=True))
    assert len(np.unique(seven_bits.numpy())) == 129


def test_unsigned_weights_use_all_integers_between_their_extremes() -> None:
    weight = torch.linspace(-0.5, 2.05, 9999)[None]
    found = round_weight(weight, Scheme(is_weight_unsigned=True))
    assert len(np.unique(found.numpy())) == 256
    assert float(found.min()) == pytest.approx(-0.5)
    assert float(found.max()) == pytest.approx(2.05)
    assert 0.0 in found


def test_weights_get_the_gradient_as_if_they_were_not_rounded() -> None:
    weight = torch.randn(4, 3, requires_grad=True)
    (round_weight(weight, Scheme()) * 2).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.full((4, 3), 2.0))


def rounding(quantizer: ActivationQuantizer, seen: Tensor) -> ActivationQuantizer:
    quantizer(seen)
    quantizer.phase = Phase.ROUND
    return quantizer.train()


def test_a_quantizer_rounds_to_what_it_has_watched() -> None:
    quantizer = rounding(ActivationQuantizer(Scheme()), torch.tensor([-1.0, 3.0]))
    assert [bound.item() for bound in quantizer.bounds()] == [-1.0, 3.0]
    assert quantizer(torch.tensor([7.0])).item() == pytest.approx(3.0, abs=0.02)


def test_a_range_always_holds_zero() -> None:
    quantizer = rounding(ActivationQuantizer(Scheme()), torch.tensor([1.0, 3.0]))
    assert quantizer.bounds()[0].item() == 0.0


def test_a_symmetric_range_is_as_wide_on_both_sides() -> None:
    quantizer = rounding(ActivationQuantizer(Scheme(is_symmetric=True)), torch.tensor([-4.0, 1.0]))
    assert [bound.item() for bound in quantizer.bounds()] == [-4.0, 4.0]


def test_a_moving_average_follows_until_it_is_frozen_and_never_in_evaluation() -> None:
    quantizer = rounding(ActivationQuantizer(Scheme(is_learned=False)), torch.tensor([0.0, 1.0]))
    quantizer.eval()(torch.tensor([9.0]))
    assert float(quantizer.high) == 1.0
    quantizer.train()(torch.tensor([9.0]))
    followed = float(quantizer.high)
    assert 1.0 < followed < 9.0
    quantizer.is_frozen = True
    quantizer(torch.tensor([9.0]))
    assert float(quantizer.high) == followed


def test_a_learned_range_follows_the_gradient() -> None:
    quantizer = rounding(ActivationQuantizer(Scheme()), torch.tensor([-1.0, 1.0]))
    optimizer = torch.optim.AdamW(quantizer.parameters(), lr=0.01)
    for _ in range(20):
        loss = (quantizer(torch.tensor([-1.0, 5.0])) - torch.tensor([-1.0, 5.0])).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    low, high = (bound.item() for bound in quantizer.bounds())
    assert high > 1.1
    assert low == pytest.approx(-1.0, abs=0.15)


def test_a_range_does_not_outgrow_the_layer_before_it() -> None:
    quantizer = rounding(ActivationQuantizer(Scheme(), ceiling=6.0), torch.tensor([0.0, 6.0]))
    with torch.no_grad():
        quantizer.high_growth.fill_(0.5)
    assert quantizer.bounds()[1].item() == 6.0


def test_integers_pass_untouched() -> None:
    quantizer = ActivationQuantizer(Scheme())
    assert quantizer(7) == 7
    codes = torch.tensor([3, 200])
    assert torch.equal(quantizer(codes), codes)
    assert not quantizer.is_used


def a_normed(layer: WeightLayer, norm: BatchNorm) -> tuple[nn.Sequential, BatchNorm]:
    torch.manual_seed(0)
    norm.running_mean.normal_()  # type: ignore[union-attr]
    norm.running_var.uniform_(0.2, 2.0)  # type: ignore[union-attr]
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    return nn.Sequential(layer, norm), norm


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), (4, 3, 8, 8)),
        (nn.Conv2d(6, 6, 3, groups=6, padding=1), nn.BatchNorm2d(6), (4, 6, 8, 8)),
        (nn.Conv1d(3, 6, 3, padding=1, padding_mode="circular"), nn.BatchNorm1d(6), (4, 3, 8)),
        (nn.Linear(5, 6), nn.BatchNorm1d(6), (4, 5)),
    ],
    ids=["conv2d", "depthwise", "conv1d", "dense"],
)
@pytest.mark.parametrize("is_training", [True, False])
def test_without_rounding_a_layer_and_its_norm_compute_as_before(
    *, layer: WeightLayer, norm: BatchNorm, shape: tuple[int, ...], is_training: bool
) -> None:
    plain, norm = a_normed(layer, norm)
    expected_from = copy.deepcopy(plain).train(is_training)
    own = QuantizedLayer(layer, norm, Scheme()).train(is_training)
    own.is_rounding = False
    x = torch.randn(*shape)
    assert torch.allclose(own(x), expected_from(x), atol=1e-5)
    for name, row in expected_from[1].named_buffers():
        assert torch.allclose(dict(norm.named_buffers())[name], row, atol=1e-5)


def test_the_folded_weight_is_what_is_rounded() -> None:
    layer, norm = nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2, eps=0.0)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 0.1]).reshape(2, 1, 1, 1))
        norm.weight.copy_(torch.tensor([1.0, 10.0]))
    together = Scheme(is_per_channel=False)
    own = QuantizedLayer(layer, norm, together).eval()
    ones = torch.ones(1, 1, 1, 1)
    assert own(ones).ravel().tolist() == pytest.approx([1.0, 1.0]), "folded, both weights are 1"
    bare = QuantizedLayer(layer, None, together).eval()
    assert bare(ones).ravel().tolist() == pytest.approx([1.0, 13 / 127])


def test_a_frozen_norm_keeps_its_statistics_and_uses_them() -> None:
    layer, norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
    own = QuantizedLayer(layer, norm, Scheme()).train()
    own.is_frozen = True
    x = torch.randn(8, 1, 6, 6) + 3
    before = copy.deepcopy(norm.state_dict())
    frozen = own(x)
    assert all(torch.equal(before[name], row) for name, row in norm.state_dict().items())
    assert torch.allclose(frozen, own.eval()(x))


def test_a_channel_that_its_norm_switched_off_gives_no_nan() -> None:
    layer, norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
    nn.init.zeros_(norm.weight)
    own = QuantizedLayer(layer, norm, Scheme()).train()
    own(torch.randn(4, 1, 6, 6)).sum().backward()
    assert layer.weight.grad is not None
    assert torch.isfinite(layer.weight.grad).all()
