"""One graph for both formats: tensors, operators, and the layers that do the work. Plain data.

Rules:
    1. Names are the file's. Where a TFLite file uses a name twice, the later one gets its index.
    2. A shape is whole numbers only, or None: an axis that nobody knows is never guessed. The first
       axis of an input is taken as 1 where the file leaves it free.
    3. Constants are read when somebody asks for their values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from trimtab_compressor.arrays import AnyArray
from trimtab_protocol.manifest import ModelFormat

ELEMENT_BITS: dict[str, int] = {
    "float64": 64,
    "float32": 32,
    "float16": 16,
    "bfloat16": 16,
    "int64": 64,
    "uint64": 64,
    "int32": 32,
    "uint32": 32,
    "int16": 16,
    "uint16": 16,
    "int8": 8,
    "uint8": 8,
    "bool": 8,
    "int4": 4,
    "uint4": 4,
    "int2": 2,
}
"""Bits of one element. What is not here (texts, resources) has no size."""


class LayerKind(str, Enum):
    """What a layer computes."""

    CONV = "conv"
    DEPTHWISE_CONV = "depthwise_conv"
    TRANSPOSED_CONV = "transposed_conv"
    DENSE = "dense"  # a matrix product with a constant
    MATMUL = "matmul"  # a product of two activations
    RECURRENT = "recurrent"
    EMBEDDING = "embedding"


class Arithmetic(str, Enum):
    """What a layer computes with, as the file asks for it."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    FLOAT16_WEIGHTS = "float16_weights"  # kept as float16, computed as float32
    INT8 = "int8"  # weights and activations
    INT16_INT8 = "int16_int8"  # activations of 16 bits
    DYNAMIC_INT8 = "dynamic_int8"  # activations are quantized while the model runs
    DYNAMIC_INT4 = "dynamic_int4"
    WEIGHT_ONLY_INT8 = "weight_only_int8"  # kept as integers, computed as float
    WEIGHT_ONLY_INT4 = "weight_only_int4"
    OTHER = "other"


INTEGER_ARITHMETIC = frozenset(
    {Arithmetic.INT8, Arithmetic.INT16_INT8, Arithmetic.DYNAMIC_INT8, Arithmetic.DYNAMIC_INT4}
)
"""Where the products themselves are of integers."""


@dataclass(frozen=True)
class Affine:
    """real = scale * (stored - zero_point), per tensor or along one axis.

    Args:
        scale: (1,) or (channels,).
        zero_point: As `scale`.
        axis: Of the stored tensor; None for one scale.
    """

    scale: AnyArray
    zero_point: AnyArray
    axis: int | None


@dataclass(frozen=True)
class GraphTensor:
    """A tensor of the file.

    Args:
        name: Unique in its graph.
        dtype: As numpy calls it; "string", "resource" and the like where numpy has none.
        shape: See rule 2.
        values: Reads a constant; None for what is computed.
        affine: How its integers are read; TFLite only, ONNX has operators for that.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    values: Callable[[], AnyArray] | None = field(default=None, repr=False)
    affine: Affine | None = None

    @property
    def is_constant(self) -> bool:
        """Whether its values stand in the file."""
        return self.values is not None

    @property
    def elements(self) -> int | None:
        """How many, or None if the shape is not known."""
        if self.shape is None:
            return None
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def size_bytes(self) -> int | None:
        """Packed size, or None if it is not known."""
        elements, bits = self.elements, ELEMENT_BITS.get(self.dtype)
        return None if elements is None or bits is None else (elements * bits + 7) // 8


@dataclass(frozen=True)
class GraphOperator:
    """One step of the graph.

    Args:
        name: May be empty.
        kind: Its type, as the format calls it.
        domain: "" for the format's own operators.
        inputs: Names; "" where one is left out.
        outputs: Names.
        attributes: Those that are whole numbers.
    """

    name: str
    kind: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, int] = field(default_factory=dict)

    def input(self, position: int) -> str:
        """Name of an input, "" if it is left out."""
        return self.inputs[position] if position < len(self.inputs) else ""


@dataclass(frozen=True)
class Layer:
    """A step that does work, or holds parameters.

    Args:
        operator: The step.
        kind: What it computes.
        weight: The stored constant; None for a product of two activations.
        bias: As `weight`.
        macs: Multiplications with additions for one run; None where a shape is not known.
        arithmetic: What it computes with.
        affine: How the stored weight becomes real numbers; None if it is one.
        output: Name of the tensor that holds its result, after the activation function where the
            format fuses that.
    """

    operator: GraphOperator
    kind: LayerKind
    weight: GraphTensor | None
    bias: GraphTensor | None
    macs: int | None
    arithmetic: Arithmetic
    affine: Affine | None
    output: str

    @property
    def name(self) -> str:
        """As recipes call it: of its node, or of its output where it has none."""
        return self.operator.name or self.output


@dataclass(frozen=True)
class FreeTensor:
    """An input or output as the file declares it; a free axis is its name, or None without one."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class ModelGraph:
    """A whole file.

    Args:
        format: Of the file.
        versions: Opsets by domain and the IR version, or the schema version of TFLite.
        producer: What wrote it, as far as the file says.
        inputs: In the order of the file.
        outputs: As `inputs`.
        operators: Of the main graph, in the order of the file.
        inner_operators: Of the graphs inside If, Loop and the like.
        tensors: Of the main graph, by name.
        layers: In the order of the file.
        notes: What the reader had to say.
    """

    format: ModelFormat
    versions: Mapping[str, int]
    producer: str
    inputs: tuple[FreeTensor, ...]
    outputs: tuple[FreeTensor, ...]
    operators: tuple[GraphOperator, ...]
    inner_operators: tuple[GraphOperator, ...]
    tensors: Mapping[str, GraphTensor]
    layers: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()


def makers_of(operators: tuple[GraphOperator, ...]) -> dict[str, GraphOperator]:
    """Which operator makes a tensor, by the tensor's name."""
    return {name: row for row in operators for name in row.outputs if name}


def takers_of(operators: tuple[GraphOperator, ...]) -> dict[str, list[GraphOperator]]:
    """Which operators take a tensor, by the tensor's name."""
    takers: dict[str, list[GraphOperator]] = {}
    for row in operators:
        for name in dict.fromkeys(row.inputs):
            takers.setdefault(name, []).append(row)
    return takers
