"""Latencies in buckets of equal ratio, so that a million of them take a few hundred bytes.

Bucket `i` counts latencies from `FIRST_MS * RATIO**i` up to, and not with, `FIRST_MS * RATIO**(i+1)`.
With eight buckets to the doubling a bucket is 9.05 % wide, and its geometric middle is at most
4.43 % away from any latency in it: that is the resolution of a percentile read from here.

Standard library only: the client in an application uses it too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate

BUCKETS_PER_DOUBLING = 8
RATIO = 2 ** (1 / BUCKETS_PER_DOUBLING)
FIRST_MS = 0.001
LAST_BUCKET = 239
"""2**30 microseconds, 18 minutes: whatever takes longer is counted here."""

SURE_DEVIATIONS = 3.0
"""How far from its mean a rank is still taken for chance: 1 in 700 on one side of a normal one."""

RESOLUTION_RATIO = math.sqrt(RATIO) - 1


def bucket_of(latency_ms: float) -> int:
    """The bucket of a latency; what is outside the range goes to the nearest one.

    Raises:
        ValueError: It is negative or not a number.
    """
    if not latency_ms >= 0 or math.isinf(latency_ms):
        raise ValueError(f"a latency is a number of milliseconds from 0 on, found {latency_ms!r}")
    if latency_ms < FIRST_MS:
        return 0
    return min(LAST_BUCKET, int(math.log2(latency_ms / FIRST_MS) * BUCKETS_PER_DOUBLING))


def middle_ms(bucket: int) -> float:
    """The geometric middle of a bucket."""
    return float(FIRST_MS * RATIO ** (bucket + 0.5))


class Histogram:
    """Counts by bucket. Not safe for threads; its owner is."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    @property
    def total(self) -> int:
        """How many latencies it holds."""
        return self._counts.total()

    def add(self, latencies_ms: Iterable[float]) -> None:
        """Count latencies.

        Raises:
            ValueError: One is negative or not a number; then none is counted.
        """
        self._counts.update([bucket_of(latency_ms) for latency_ms in latencies_ms])

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add counts by bucket.

        Raises:
            ValueError: A bucket does not exist or a count is not positive; then none is added.
        """
        for bucket, count in counts.items():
            if not 0 <= bucket <= LAST_BUCKET or count < 1:
                raise ValueError(
                    f"buckets go from 0 to {LAST_BUCKET} with counts from 1 on, "
                    f"found {count} in bucket {bucket}"
                )
        self._counts.update(counts)

    def counts(self) -> dict[int, int]:
        """The counts by bucket."""
        return dict(sorted(self._counts.items()))

    def take(self) -> dict[int, int]:
        """The counts by bucket, and begin anew."""
        counts, self._counts = self.counts(), Counter()
        return counts

    def percentile_bounds_ms(self, share: float) -> tuple[float, float] | None:
        """Between what a percentile surely lies, the resolution included.

        Of n independent latencies the number below the percentile is binomial; the bounds are the
        latencies at three standard deviations of that number around its mean, one rank farther out.

        Returns:
            (low, high) in milliseconds; None if too few latencies support both (fewer than 100 for p90).
        """
        mean, deviation = share * self.total, math.sqrt(share * (1 - share) * self.total)
        low = math.floor(mean - SURE_DEVIATIONS * deviation)
        high = math.ceil(mean + SURE_DEVIATIONS * deviation) + 1
        if low < 1 or high > self.total:
            return None
        edge_ratio = math.sqrt(RATIO)
        return (
            middle_ms(self._bucket_at(low)) / edge_ratio,
            middle_ms(self._bucket_at(high)) * edge_ratio,
        )

    def percentile_ms(self, share: float) -> float | None:
        """A percentile, as the middle of the bucket that holds it (nearest rank).

        Args:
            share: In (0, 1); 0.9 for p90.

        Returns:
            Milliseconds, at most RESOLUTION_RATIO off; None if so few latencies do not support it:
            one beyond the percentile must be expected (2 for p50, 10 for p90).
        """
        if self.total * (1 - share) < 1 - 1e-9:
            return None
        return middle_ms(self._bucket_at(math.ceil(share * self.total)))

    def _bucket_at(self, rank: int) -> int:
        """The bucket of the latency at a rank, from 1 to `total`."""
        buckets = sorted(self._counts)
        seen = accumulate(self._counts[bucket] for bucket in buckets)
        return next(bucket for bucket, so_far in zip(buckets, seen, strict=True) if so_far >= rank)
