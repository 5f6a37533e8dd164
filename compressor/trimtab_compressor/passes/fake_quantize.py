"""Fake quantization: floats that take only the values that integers will, with a gradient.

x̂ = s · (clamp(round(x / s) + z, 0, steps) - z),   s = (high - low) / steps,   z = round(-low / s)

which is what QuantizeLinear followed by DequantizeLinear computes. Rounding has no gradient; it is
taken as if it were not there (straight-through, Bengio, Léonard, Courville 2013), inside the range.

The bounds of an activation are learned by the gradient of LSQ (Esser et al., "Learned step size
quantization", ICLR 2020, equation 3), written for two bounds instead of one step, which gives
asymmetric ranges as in LSQ+ (Bhalgat et al. 2020):
    inside      dx̂/ds = (x̂ - x) / s, and ds/dhigh = -ds/dlow = 1 / steps
    above high  dx̂/dhigh = 1
    below low   dx̂/dlow = 1
Esser et al. scale this gradient so that it fits SGD; AdamW divides by the gradient's own size, so a
bound is the exponential of what is trained instead (Jain et al., "Trained quantization thresholds",
MLSys 2020): one step of the optimizer changes any bound by the same share of itself.

Weights have no range of their own: the quantizers of both file formats take the largest magnitude of
the weights that they find, and so does training. What is trained is what the file will hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.modules.batchnorm import _BatchNorm

BatchNorm = _BatchNorm
WeightLayer: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
WEIGHT_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)

MOMENTUM = 0.05
"""Weight of the newest batch in a moving average."""
SMALLEST = 1e-6
"""Of a range and of a factor that something is divided by."""


@dataclass(frozen=True)
class Scheme:
    """Which integers there will be.

    Args:
        is_symmetric: Activations: -127 to 127 around zero instead of 0 to 255.
        is_per_channel: Weights: one scale per output channel.
        is_range_reduced: Weights: -64 to 64 instead of -127 to 127.
        is_weight_unsigned: Weights: 0 to 255 with a zero point instead.
        is_learned: Activation ranges follow the gradient, not what was seen.
    """

    is_symmetric: bool = False
    is_per_channel: bool = True
    is_range_reduced: bool = False
    is_weight_unsigned: bool = False
    is_learned: bool = True

    @property
    def steps(self) -> int:
        """Of an activation's range."""
        return 254 if self.is_symmetric else 255

    @property
    def weight_bound(self) -> int:
        """Largest integer of a weight."""
        if self.is_weight_unsigned:
            return 255
        return 64 if self.is_range_reduced else 127

    @property
    def weight_steps(self) -> int:
        """Of a weight's range."""
        return self.weight_bound if self.is_weight_unsigned else 2 * self.weight_bound


class _RoundToRange(torch.autograd.Function):
    """(x, low (), high (), steps) -> x̂ of the shape of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor, steps: int) -> Tensor:
        scale = (high - low) / steps
        zero = torch.round(-low / scale)
        ctx.save_for_backward(x, low, high, scale, zero)
        ctx.steps = steps
        return (x / scale).round_().clamp_(-zero, steps - zero).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, low, high, scale, zero = ctx.saved_tensors
        rounded = (x / scale).round_()
        passed = gradient * (rounded.clamp(-zero, ctx.steps - zero) == rounded)
        if not ctx.needs_input_grad[2]:
            return passed, None, None, None
        error = rounded.mul_(scale).sub_(x)  # x̂ - x, where x is inside
        by_scale = error.mul_(passed).sum() / (high - low)
        outside = gradient - passed
        above = outside.sum() if zero == 0 else (outside * (x > 0)).sum()
        return passed, outside.sum() - above - by_scale, above + by_scale, None


def round_to_range(x: Tensor, low: Tensor, high: Tensor, steps: int) -> Tensor:
    """Fake quantization per tensor, with gradients for all three.

    Args:
        x: Of any shape.
        low: (), at most 0.
        high: (), at least 0 and above `low`.
        steps: Between the lowest and the highest integer.
    """
    rounded: Tensor = _RoundToRange.apply(x, low, high, steps)  # type: ignore[no-untyped-call]
    return rounded


def round_weight(weight: Tensor, scheme: Scheme) -> Tensor:
    """Fake quantization of a weight, by the extremes of what it holds.

    Args:
        weight: (out_channels, ...).
        scheme: Per channel or per tensor, around zero or not, and to how many bits.
    """
    with torch.no_grad():
        rows = weight.flatten(1) if scheme.is_per_channel else weight.reshape(1, -1)
        low, high = rows.amin(dim=1).clamp_max(0), rows.amax(dim=1).clamp_min(0)
        if scheme.is_weight_unsigned:
            scale = (high - low).clamp_min(SMALLEST) / scheme.weight_bound
            least = (low / scale).round_()  # that is -zero point
        else:
            scale = torch.maximum(-low, high).clamp_min(SMALLEST) / scheme.weight_bound
            least = torch.full_like(scale, -scheme.weight_bound)
        most = least + scheme.weight_steps
        scale, least, most = (_beside_rows(row, weight) for row in (scale, least, most))
        change = (weight / scale).round_().clamp_(least, most).mul_(scale).sub_(weight)
    return weight + change


def _beside_rows(values: Tensor, weight: Tensor) -> Tensor:
    """(out_channels or 1,) -> (out_channels or 1, 1, ...)"""
    return values.reshape(-1, *[1] * (weight.ndim - 1))


class Phase(Enum):
    """What a quantizer does with what passes."""

    FLOAT = "float"  # nothing
    WATCH = "watch"  # nothing, but the range grows with it
    ROUND = "round"  # rounds it; in training mode the range is learned, or follows


class ActivationQuantizer(nn.Module):
    """Stands where a file will have QuantizeLinear and DequantizeLinear.

    Args:
        scheme: Of all quantizers of the network.
        ceiling: What the layer before cannot exceed (6 for ReLU6): a file drops that layer, because
            the range does its work.
    """

    low: Tensor
    high: Tensor

    def __init__(self, scheme: Scheme, ceiling: float | None = None) -> None:
        super().__init__()
        self.scheme = scheme
        self.ceiling = ceiling
        self.phase = Phase.WATCH
        self.is_frozen = False
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.low_growth = nn.Parameter(torch.zeros(()), requires_grad=scheme.is_learned)
        self.high_growth = nn.Parameter(torch.zeros(()), requires_grad=scheme.is_learned)

    @property
    def is_used(self) -> bool:
        """Whether anything but zeros has passed."""
        return bool(self.high > self.low)

    def forward(self, x: Any) -> Any:
        """(any shape) -> the same shape; what is no float tensor passes as it is."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        if self.phase is Phase.WATCH:
            self._watch(x, momentum=None)
        if self.phase is not Phase.ROUND:
            return x
        if self.training and not self.scheme.is_learned and not self.is_frozen:
            self._watch(x, momentum=MOMENTUM)
        return round_to_range(x, *self.bounds(), self.scheme.steps)

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Low and high as they are now, each ()."""
        high = self.high * self.high_growth.exp()
        low = -high if self.scheme.is_symmetric else self.low * self.low_growth.exp()
        if self.ceiling is not None:
            high = high.clamp_max(self.ceiling)
        return low, torch.maximum(high, low + SMALLEST)

    @torch.no_grad()
    def _watch(self, x: Tensor, momentum: float | None) -> None:
        found_low, found_high = (row.float() for row in torch.aminmax(x.detach()))
        if self.scheme.is_symmetric:
            found_high = torch.maximum(found_high, -found_low)
        if momentum is None:
            self.low.copy_(torch.minimum(self.low, found_low))
            self.high.copy_(torch.maximum(self.high, found_high))
        else:  # zero stays inside, as padding and ReLU need it exactly
            self.low.lerp_(found_low.clamp_max(0), momentum)
            self.high.lerp_(found_high.clamp_min(0), momentum)


class QuantizedLayer(nn.Module):
    """A convolution or dense layer whose weight is rounded, with the BatchNorm behind it.

    A file has the BatchNorm folded into the weight, so it is the folded weight that is rounded. While
    the statistics move, y = BN(conv(x, round(W · f)) / f) with f = γ / σ of the running statistics, so
    that the rounding is that of the file and the normalisation that of the batch (Krishnamoorthi,
    "Quantizing deep convolutional networks for efficient inference", 2018, section 3.2.2). Frozen, or
    evaluated: y = conv(x, round(W · f)) + β + (b - μ) · f.

    Args:
        layer: Its parameters are trained in place.
        norm: Its BatchNorm, or None.
        scheme: Of all weights.
    """

    def __init__(self, layer: WeightLayer, norm: BatchNorm | None, scheme: Scheme) -> None:
        super().__init__()
        self.layer = layer
        self.norm = norm
        self.scheme = scheme
        self.is_rounding = True
        self.is_frozen = False

    def forward(self, x: Tensor) -> Tensor:
        """As the layer and its BatchNorm."""
        weight, bias, norm = self.layer.weight, self.layer.bias, self.norm
        if norm is None:
            return self._compute(x, weight, bias)
        assert norm.running_var is not None
        assert norm.running_mean is not None
        factor = torch.rsqrt(norm.running_var + norm.eps)
        if norm.affine:
            factor = factor * norm.weight
        if self.training and not self.is_frozen:
            factor = _away_from_zero(factor.detach())
            found = self._compute(x, _scale_channels(weight, factor), None)
            found = found / self._beside(factor)
            if bias is not None:
                found = found + self._beside(bias)
            normed: Tensor = norm(found)
            return normed
        shift = -norm.running_mean if bias is None else bias - norm.running_mean
        shift = shift * factor
        if norm.affine:
            shift = shift + norm.bias
        return self._compute(x, _scale_channels(weight, factor), shift)

    def _compute(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.is_rounding:
            weight = round_weight(weight, self.scheme)
        if isinstance(self.layer, nn.Linear):
            return linear(x, weight, bias)
        found: Tensor = self.layer._conv_forward(x, weight, bias)  # it knows all paddings
        return found

    def _beside(self, values: Tensor) -> Tensor:
        """(channels,) -> a shape that multiplies the layer's output."""
        if isinstance(self.layer, nn.Linear):
            return values
        return values.reshape(-1, *[1] * (self.layer.weight.ndim - 2))


def _scale_channels(weight: Tensor, factor: Tensor) -> Tensor:
    """(out_channels, ...) · (out_channels,)."""
    return weight * _beside_rows(factor, weight)


def _away_from_zero(factor: Tensor) -> Tensor:
    """A channel with γ = 0 gives a constant; it is divided by something all the same."""
    return torch.where(factor.abs() < SMALLEST, SMALLEST, factor)
