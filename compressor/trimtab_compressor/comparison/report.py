"""What `compare` found, as a document with stable names."""

from __future__ import annotations

from typing import Literal

from trimtab_compressor.inspection.description import OperatorCount
from trimtab_compressor.inspection.graph import Arithmetic
from trimtab_protocol.base import WireModel
from trimtab_protocol.manifest import ModelFormat
from trimtab_protocol.reading import Reading


class SideReport(WireModel):
    """One of the two files.

    Args:
        int8_macs_ratio: Share of the multiplications that are of integers.
        int8_parameters_ratio: Share of the parameters that are kept as integers of 8 bits or fewer.
        float_operators: Layers that multiply floats, by type.
        accuracy_exact: Absent without labels.
        accuracy_on_host: As `accuracy_exact`, by the default kernels of this CPU.
    """

    file: str
    format: ModelFormat
    sha256: str
    size_bytes: int
    parameters: int
    macs: Reading
    arithmetic: dict[Arithmetic, int]
    int8_macs_ratio: Reading
    int8_parameters_ratio: float
    float_operators: tuple[OperatorCount, ...]
    accuracy_exact: Reading
    accuracy_on_host: Reading


class OutputReport(WireModel):
    """One output of B beside the same one of A, by one kind of kernels.

    Args:
        a: Name in A.
        b: Name in B.
        kernels: "exact": the arithmetic as written in the files; "default": this CPU's.
        cosine: Mean over the samples.
        sqnr_db: 10 log10 of A's energy over that of the difference; absent where they are the same.
        same_answer_ratio: Samples whose largest element stands at the same place; absent if an
            output is no row of scores.
    """

    a: str
    b: str
    kernels: Literal["exact", "default"]
    max_abs_error: float
    mean_abs_error: float
    value_range: float
    cosine: float
    sqnr_db: Reading
    same_answer_ratio: Reading


class LatencyReport(WireModel):
    """B's latency on this host over A's, in turns on one thread; below 1 is faster."""

    a_p50_ms: float
    b_p50_ms: float
    ratio: Reading
    host_cpu: str


class Comparison(WireModel):
    """Two files, and how they differ.

    Args:
        data: Where the inputs come from.
        samples: How many.
        layout: How B's inputs were made of A's: "same", "nchw_to_nhwc" or "nhwc_to_nchw".
        size_ratio: Bytes of B over A.
    """

    a: SideReport
    b: SideReport
    data: str
    samples: int
    layout: str
    size_ratio: float
    outputs: tuple[OutputReport, ...]
    latency: LatencyReport | None = None
    notes: tuple[str, ...] = ()
