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

BUCKETS_PER_DOUBLING = 8
RATIO = 2 ** (1 / BUCKETS_PER_DOUBLING)
FIRST_MS = 0.001
LAST_BUCKET = 239
"""2**30 microseconds, 18 minutes: whatever takes longer is counted here."""

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

    def take(self) -> dict[int, int]:
        """The counts by bucket, and begin anew."""
        counts, self._counts = self._counts, Counter()
        return dict(sorted(counts.items()))

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
        rank = math.ceil(share * self.total)
        seen = 0
        for bucket, count in sorted(self._counts.items()):
            seen += count
            if seen >= rank:
                return middle_ms(bucket)
        return None
