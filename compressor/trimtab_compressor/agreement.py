"""Pure judgements over arrays: accuracy, and whether a file still computes its network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimtab_compressor.arrays import AnyArray, IntArray
from trimtab_protocol.errors import ErrorCode, ModelError

MIN_COSINE = 0.9
"""Mean cosine of quantized and float outputs. Sane int8 models are above 0.97, garbage near 0."""

MIN_SAME_ANSWER = 0.9
"""Share of samples whose largest output stands at the same place."""

FLOAT_TOLERANCE_RATIO = 1e-3
"""Largest difference of a float export, relative to the range of the outputs."""


@dataclass(frozen=True)
class Agreement:
    """How near two sets of outputs are."""

    cosine: float
    same_answer: float
    max_abs_error: float
    value_range: float


def top1_accuracy(outputs: AnyArray, labels: IntArray) -> float:
    """Share of samples whose largest output is at the label. (n, classes), (n,) -> ratio"""
    return float((outputs.argmax(axis=1) == labels).mean())


def compare_outputs(found: AnyArray, expected: AnyArray) -> Agreement:
    """Compare a file's outputs with its float network's, both (n, classes).

    Raises:
        ModelError: Shapes differ, or a value is not finite.
    """
    if found.shape != expected.shape:
        raise ModelError(
            f"the file gives outputs of shape {list(found.shape)}, its network "
            f"{list(expected.shape)}",
            code=ErrorCode.MODEL_GOLDEN,
        )
    if not np.isfinite(found).all():
        raise ModelError("the file gives outputs that are not finite", code=ErrorCode.MODEL_GOLDEN)
    a, b = found.astype(np.float64), expected.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
    return Agreement(
        cosine=float(cosines.mean()),
        same_answer=float((a.argmax(axis=1) == b.argmax(axis=1)).mean()),
        max_abs_error=float(np.abs(a - b).max()),
        value_range=float(np.ptp(b)),
    )


def check_agreement(agreement: Agreement, *, is_quantized: bool) -> None:
    """Refuse a file that does not compute what its network computes.

    Raises:
        ModelError: `model.golden`. Do not make an artifact of it; try another recipe.
    """
    if is_quantized:
        if agreement.cosine < MIN_COSINE or agreement.same_answer < MIN_SAME_ANSWER:
            raise ModelError(
                f"the quantized file does not compute its network any more: cosine "
                f"{agreement.cosine:.3f} (at least {MIN_COSINE}), same answer "
                f"{agreement.same_answer:.1%} (at least {MIN_SAME_ANSWER:.0%}); use another recipe",
                code=ErrorCode.MODEL_GOLDEN,
            )
        return
    limit = FLOAT_TOLERANCE_RATIO * agreement.value_range
    if agreement.max_abs_error > limit:
        raise ModelError(
            f"the exported file is off its network by {agreement.max_abs_error:.4g}, at most "
            f"{limit:.4g} is rounding; the export is wrong",
            code=ErrorCode.MODEL_GOLDEN,
        )
