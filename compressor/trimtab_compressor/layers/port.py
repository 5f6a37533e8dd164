"""The port of a model file's weighted layers. One adapter per format; techniques never know which.

Conventions that every adapter keeps:
    1. A weight is (out, in / groups, *kernel), also where the file stores it otherwise.
    2. Layers stand in the order of execution.
    3. Activations come as the runtime gives them; `Layer.channel_axis` says where the channels are.
    4. A layer that an adapter cannot read with certainty is not listed, so nobody changes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol, TypeAlias

from trimtab_compressor.arrays import AnyArray, FloatArray, IntArray

Samples: TypeAlias = Mapping[str, AnyArray]
"""By input name, (n, *sample shape)."""


class LayerKind(str, Enum):
    """What a layer computes."""

    DENSE = "dense"
    CONV = "conv"
    DEPTHWISE_CONV = "depthwise_conv"


@dataclass(frozen=True)
class Window:
    """Where a convolution's kernel looks. One entry per spatial axis.

    Args:
        strides: Steps between two outputs.
        dilations: Steps between two taps of the kernel.
        padding: Zeros (before, after); None where the output is as large as the input divided by
            the stride, and an odd zero goes behind.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: tuple[tuple[int, int], ...] | None


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer with constant float weights.

    Args:
        name: Unique in the file; what the quantizers call it (ONNX: the node's name; TFLite: the
            name of the operator's output).
        kind: See LayerKind.
        weight: (out, in / groups, *kernel), float32; not to be changed.
        bias: (out,), or None.
        groups: 1 but for grouped and depthwise convolutions.
        window: Of a convolution.
        input: Name of the activation that it reads.
        output: Name of the activation that it gives.
        rank: Axes of the output; 0 where unknown.
        channel_axis: Of the output, and of a convolution's input. A dense layer reads the last axis.
        bounds: What the function behind keeps: (0, inf) is ReLU, (0, 6) is ReLU6; (-inf, inf) is
            none, or one that is no clip.
    """

    name: str
    kind: LayerKind
    weight: FloatArray
    bias: FloatArray | None
    groups: int
    window: Window | None
    input: str
    output: str
    rank: int
    channel_axis: int
    bounds: tuple[float, float] = (-math.inf, math.inf)

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return int(self.weight.shape[0])

    @property
    def inputs(self) -> int:
        """Number of input channels, or of input features."""
        return int(self.weight.shape[1]) * self.groups


@dataclass(frozen=True)
class Clip:
    """A clip at an upper limit between two layers, such as ReLU6.

    Args:
        tensor: What it gives.
        limit: Above 0.
        channel_axis: Of the tensor.
    """

    tensor: str
    limit: float
    channel_axis: int


@dataclass(frozen=True, eq=False)
class Pair:
    """Two layers between which a positive factor per channel can be moved.

    Args:
        first: Name of the layer whose output channels are scaled.
        second: Name of the layer whose inputs undo it; nobody else reads what lies between.
        channel_of_input: (inputs of second,): the output channel of `first` that each input reads.
        clip: What lies between and does not commute with every factor.
    """

    first: str
    second: str
    channel_of_input: IntArray
    clip: Clip | None = None


@dataclass(frozen=True, eq=False)
class Update:
    """New values for a layer; None keeps what there is. A bias is added where there was none."""

    weight: FloatArray | None = None
    bias: FloatArray | None = None


Updates: TypeAlias = Mapping[str, Update]
"""By the layer's name."""


class LayerGraph(Protocol):
    """A model file as its weighted layers."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers, in the order of execution."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All pairs, in the order of execution."""

    def capture(
        self, tensors: Sequence[str], samples: Samples, updates: Updates
    ) -> Iterator[dict[str, FloatArray]]:
        """Run samples on the real runtime and give the named activations, batch by batch.

        Args:
            tensors: Names, from `Layer.input`, `Layer.output` or `Clip.tensor`.
            samples: For the model's inputs.
            updates: Values that are in place while this runs.
        """

    def write(self, updates: Updates, target: Path) -> None:
        """Write the file with updates in place."""
