"""Count the multiply-accumulates of a network.

Counted are the products of convolutions (also transposed), dense layers, matrix products (attention
too) and recurrent layers, for one sample. Not counted: biases, activations, pooling, normalization,
whose work is small beside it and which runtimes fold into the layer before.

    convolution: output positions · output channels · input channels / groups · kernel area
    (n, k) x (k, m): n · k · m
    recurrent layer: steps · directions · gates · hidden · (inputs + hidden), projections as dense layers
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Run one sample of zeros and count.

    Args:
        model: On the CPU; left as it was, in evaluation mode.
        input_shape: Of one sample.
    """
    counter = FlopCounterMode(display=False)
    layers = [row for row in model.modules() if isinstance(row, nn.RNNBase)]
    missed = [0]
    before = [0]

    def enter(_layer: nn.Module, _inputs: object) -> None:
        before[0] = counter.get_total_flops() // 2

    def leave(layer: nn.Module, inputs: tuple[Tensor, ...], _outputs: object) -> None:
        """PyTorch counts the products of some recurrent kernels and not those of others."""
        assert isinstance(layer, nn.RNNBase)
        counted = counter.get_total_flops() // 2 - before[0]
        missed[0] += _recurrent_macs(layer, inputs[0]) - counted

    hooks = [row.register_forward_pre_hook(enter) for row in layers]
    hooks += [row.register_forward_hook(leave) for row in layers]
    try:
        with torch.enable_grad(), counter:
            model.eval()(torch.zeros(1, *input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return int(counter.get_total_flops()) // 2 + missed[0]


def count_parameters(model: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in model.parameters())


def _recurrent_macs(layer: nn.RNNBase, inputs: Tensor) -> int:
    """(steps, 1, features) or (1, steps, features) -> products of one sample."""
    steps = inputs.shape[1] if layer.batch_first else inputs.shape[0]
    width = layer.proj_size or layer.hidden_size
    directions = 2 if layer.bidirectional else 1
    total, features = 0, layer.input_size
    for _ in range(layer.num_layers):
        cell = GATES[layer.mode] * layer.hidden_size * (features + width)
        total += steps * directions * (cell + layer.proj_size * layer.hidden_size)
        features = width * directions
    return total
