"""How far one array of outputs is from another. Pure.

SQNR = 10 log10(sum(a²) / sum((a - b)²)) in decibels: the energy of the signal over that of the
noise (Oppenheim and Schafer, Discrete-Time Signal Processing, on quantization noise).
"""

from __future__ import annotations

import numpy as np

from trimtab_compressor.agreement import compare_outputs
from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.comparison.report import OutputReport
from trimtab_compressor.runtimes.port import Kernels
from trimtab_protocol.reading import Reading


def sqnr_db(a: AnyArray, b: AnyArray) -> Reading:
    """Of b, with a for the signal."""
    signal = float(np.square(a.astype(np.float64)).sum())
    noise = float(np.square(a.astype(np.float64) - b).sum())
    if not noise:
        return Reading(absent="the outputs are the same to the last bit")
    if not signal:
        return Reading(absent="the outputs of A are all zero")
    return Reading(value=float(10 * np.log10(signal / noise)))


def report_output(
    a: AnyArray, b: AnyArray, names: tuple[str, str], kernels: Kernels
) -> OutputReport:
    """All figures of one output, (n, ...) each.

    Raises:
        ModelError: A value is not finite.
    """
    agreement = compare_outputs(b, a)
    same = Reading(absent="the output is no row of scores")
    if agreement.has_answers:
        same = Reading(value=agreement.same_answer)
    return OutputReport(
        a=names[0],
        b=names[1],
        kernels=kernels.value,
        max_abs_error=agreement.max_abs_error,
        mean_abs_error=float(np.abs(a.astype(np.float64) - b).mean()),
        value_range=agreement.value_range,
        cosine=agreement.cosine,
        sqnr_db=sqnr_db(a, b),
        same_answer_ratio=same,
    )
