"""Ranges that activations were trained with, and which tensor of a file each belongs to.

An exporter renames tensors, fuses operators and turns axes, so a name says nothing in another format.
What a tensor holds does: for the same samples, size, mean, root mean square, lowest and highest value
are the same in every layout. Two tensors that hold the same values need the same range, so a tie does
no harm; a tensor that a later pass changed is not recognised, and is calibrated as usual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from trimtab_compressor.arrays import AnyArray

PROBE_SAMPLES = 8
"""The first calibration samples; tensors are compared for these."""
TOLERANCE = 1e-3
"""Largest difference of a statistic, as a share of the root mean square; floats of two runtimes stay
near 1e-5."""


@dataclass(frozen=True)
class Fingerprint:
    """What a tensor holds, in whatever order.

    Args:
        size: Values per sample.
        mean: Of all values of the probe samples, in the tensor's unit, as are the others.
        rms: Root mean square.
        low: Least value.
        high: Greatest value.
    """

    size: int
    mean: float
    rms: float
    low: float
    high: float


@dataclass(frozen=True)
class LearnedRange:
    """The range of one activation.

    Args:
        name: Of the operator in the network, for people.
        low: At most 0; with `high`, what the integers span.
        high: At least 0.
        fingerprint: Of the float network's tensor.
    """

    name: str
    low: float
    high: float
    fingerprint: Fingerprint


def take_fingerprint(values: AnyArray, samples: int = PROBE_SAMPLES) -> Fingerprint:
    """Describe a tensor.

    Args:
        values: Of the probe samples, (samples, ...) or the same in one axis.
        samples: How many.
    """
    flat = np.asarray(values, np.float64).ravel()
    return Fingerprint(
        size=flat.size // samples,
        mean=float(flat.mean()),
        rms=float(np.sqrt(np.square(flat).mean())),
        low=float(flat.min()),
        high=float(flat.max()),
    )


def match_ranges(
    tensors: Mapping[str, Fingerprint], ranges: Sequence[LearnedRange]
) -> dict[str, LearnedRange]:
    """Say which range belongs to which tensor of a file.

    Args:
        tensors: By name in the file.
        ranges: Of the network.

    Returns:
        By name in the file, the range of the nearest fingerprint, where one is near enough.
    """
    found = {}
    for name, own in tensors.items():
        nearest = min(ranges, key=lambda row: _distance(own, row.fingerprint), default=None)
        if nearest is not None and _distance(own, nearest.fingerprint) <= TOLERANCE:
            found[name] = nearest
    return found


def _distance(one: Fingerprint, other: Fingerprint) -> float:
    if one.size != other.size:
        return float("inf")
    unit = max(one.rms, other.rms)
    if unit == 0:
        return 0.0
    pairs = zip(astuple(one)[1:], astuple(other)[1:], strict=True)
    return float(max(abs(left - right) for left, right in pairs) / unit)
