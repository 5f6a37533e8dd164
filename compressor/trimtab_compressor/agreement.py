"""Pure judgements over arrays: accuracy, and whether a file still computes its network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trimtab_compressor.arrays import AnyArray, IntArray
from trimtab_protocol.errors import ConfigError, ErrorCode, ModelError

MIN_COSINE = 0.9
"""Mean cosine of quantized and float outputs. Sane int8 models are above 0.97, garbage near 0."""

MIN_SAME_ANSWER = 0.9
"""Share of samples whose largest output stands at the same place."""

EMPTY = 1e-12
"""Outputs that are all below this, such as a mask without anything in it, have no direction."""

FLOAT_TOLERANCE_RATIO = 1e-3
"""Largest difference of a float export, relative to the range of the outputs."""


TOP1_ACCURACY, TOP1_AGREEMENT, COSINE_AGREEMENT = (
    "top1_accuracy",
    "top1_agreement",
    "cosine_agreement",
)
"""What a quality counts: right answers; without labels, answers that the float model gives too; without
answers (a mask, an embedding), how far outputs point where the float model's do."""


@dataclass(frozen=True)
class Agreement:
    """How near two sets of outputs are.

    Args:
        cosine: Mean over the samples.
        same_answer: Share of samples whose largest output stands at the same place.
        max_abs_error: Largest difference of any element, in the output's unit.
        value_range: Of the expected outputs.
        has_answers: Whether an output is an answer at all: one row of scores or one integer per sample.
    """

    cosine: float
    same_answer: float
    max_abs_error: float
    value_range: float
    has_answers: bool = True


def answers(outputs: AnyArray) -> AnyArray | None:
    """The answer to each sample: (n, classes) scores or (n,) integers -> (n,); None for other outputs."""
    if outputs.dtype.kind in "iub" and outputs.size == len(outputs):
        return outputs.reshape(-1)
    is_scores = outputs.dtype.kind == "f" and outputs.ndim == 2 and outputs.shape[1] > 1
    return outputs.argmax(axis=1) if is_scores else None


def top1_accuracy(outputs: AnyArray, labels: IntArray) -> float:
    """Share of samples whose answer is the label. (n, classes), (n,) -> ratio

    Raises:
        ConfigError: The outputs are no answers, so that labels say nothing about them.
    """
    found = answers(outputs)
    if found is None:
        raise ConfigError(
            f"outputs of shape {list(outputs.shape)} are not one row of scores per sample, so labels "
            "cannot judge them; leave the labels out to have them compared with the float model"
        )
    return float((found == labels).mean())


def score(
    found: Sequence[AnyArray], expected: Sequence[AnyArray], labels: IntArray | None
) -> tuple[str, float]:
    """What is counted, and the ratio: the first output's accuracy, or the worst output's agreement.

    Args:
        found: Outputs of the file, in the model's order.
        expected: Those of the float model.
        labels: (n,), or None.
    """
    if labels is not None:
        return TOP1_ACCURACY, top1_accuracy(found[0], labels)
    pairs = [compare_outputs(*pair) for pair in zip(found, expected, strict=True)]
    if all(row.has_answers for row in pairs):
        return TOP1_AGREEMENT, min(row.same_answer for row in pairs)
    return COSINE_AGREEMENT, max(0.0, min(1.0, *(row.cosine for row in pairs)))


def compare_outputs(found: AnyArray, expected: AnyArray) -> Agreement:
    """Compare a file's outputs with its float network's, both (n, ...).

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
    a, b = (rows.reshape(len(rows), -1).astype(np.float64) for rows in (found, expected))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_empty = np.maximum(np.abs(a).max(axis=1), np.abs(b).max(axis=1)) < EMPTY
    cosines = np.where(both_empty, 1.0, (a * b).sum(axis=1) / np.maximum(lengths, EMPTY))
    own, wanted = answers(found), answers(expected)
    has_answers = own is not None and wanted is not None
    if own is None or wanted is None:
        own, wanted = a.argmax(axis=1), b.argmax(axis=1)
    return Agreement(
        cosine=float(cosines.mean()),
        same_answer=float((own == wanted).mean()),
        max_abs_error=float(np.abs(a - b).max()),
        value_range=float(np.ptp(b)),
        has_answers=has_answers,
    )


def check_agreement(agreement: Agreement, *, is_quantized: bool) -> None:
    """Refuse a file that does not compute what its network computes.

    Raises:
        ModelError: `model.golden`. Do not make an artifact of it; try another recipe.
    """
    if is_quantized:
        is_other_answer = agreement.has_answers and agreement.same_answer < MIN_SAME_ANSWER
        if agreement.cosine < MIN_COSINE or is_other_answer:
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
