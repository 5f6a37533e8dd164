"""What `inspect` says of a file, as a document with stable names."""

from __future__ import annotations

from trimtab_compressor.inspection.graph import Arithmetic, LayerKind
from trimtab_protocol.base import Sha256, WireModel
from trimtab_protocol.manifest import ModelFormat
from trimtab_protocol.reading import Reading


class IoDescription(WireModel):
    """An input or output as the file declares it.

    A free axis is the name that the file gives it, or None.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


class OperatorCount(WireModel):
    """How often an operator stands in the file; `domain` is "" for the format's own."""

    operator: str
    domain: str
    count: int
    is_inner: bool = False


class LayerDescription(WireModel):
    """A step that does work or holds parameters.

    Args:
        name: As recipes call it: ONNX, of its node, or of its output where it has none; TFLite, of
            its output.
        weight: Name of the stored weight; "" for a product of two activations.
        weight_shape: As stored: ONNX (out, in, h, w), TFLite (out, h, w, in).
        dtype: Of the stored weight.
        scales: How many scales the weight has: 0 for floats, 1 per tensor, more per channel.
        weight_bytes: Weight and bias, as stored.
        macs: Of one run; absent where a shape is not known.
    """

    name: str
    weight: str
    operator: str
    kind: LayerKind
    weight_shape: tuple[int, ...]
    dtype: str
    scales: int
    parameters: int
    weight_bytes: int
    macs: int | None
    arithmetic: Arithmetic


class StoredTotals(WireModel):
    """Parameters of one type."""

    tensors: int
    elements: int
    size_bytes: int


class ArithmeticShare(WireModel):
    """What part of the model is computed in one way.

    Args:
        macs_ratio: Of all multiplications; absent if those are.
        parameters_ratio: Of all parameters of layers.
    """

    layers: int
    macs_ratio: float | None
    parameters_ratio: float


class Totals(WireModel):
    """Sums over the file.

    Args:
        parameters: Weights and other constants that are learned; no shapes, scales or zero points.
        parameter_bytes: As stored.
        macs: Of one run, a free batch taken as 1.
        activations_peak_bytes: Of all tensors that are alive at the worst step, in the order of the
            file. A runtime adds scratch memory, and may save some by working in place.
    """

    parameters: int
    parameter_bytes: int
    macs: Reading
    activations_peak_bytes: Reading


class RunsHere(WireModel):
    """Whether this host's runtime runs the file.

    Args:
        loads: Whether it could be loaded.
        runs: Whether one run on seeded inputs gave finite numbers; absent if it was not tried.
        reason: Why not.
    """

    runtime: str
    loads: bool
    runs: bool | None
    reason: str = ""


class PassAdvice(WireModel):
    """Whether a pass can be applied to this file, and why or why not."""

    pass_name: str
    is_applicable: bool
    reason: str


class Inspection(WireModel):
    """What is in a model file."""

    file: str
    format: ModelFormat
    versions: dict[str, int]
    producer: str
    size_bytes: int
    sha256: Sha256
    inputs: tuple[IoDescription, ...]
    outputs: tuple[IoDescription, ...]
    operators: tuple[OperatorCount, ...]
    foreign_operators: tuple[str, ...]
    layers: tuple[LayerDescription, ...]
    totals: Totals
    stored: dict[str, StoredTotals]
    arithmetic: dict[Arithmetic, ArithmeticShare]
    runs_here: RunsHere | None = None
    passes: tuple[PassAdvice, ...] = ()
    notes: tuple[str, ...] = ()
