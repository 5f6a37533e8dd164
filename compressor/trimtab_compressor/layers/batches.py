"""Run samples in batches whose captured activations stay within a fixed memory."""

from __future__ import annotations

from collections.abc import Iterator

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.runtimes.port import Arrays, Runner, is_batch_free

CAPTURE_BYTES = 64 * 2**20
"""Of one batch's captured activations."""


def run_in_batches(runner: Runner, samples: Arrays) -> Iterator[dict[str, AnyArray]]:
    """Give all outputs, batch by batch.

    Args:
        runner: The model.
        samples: By input name, (n, *sample shape), n > 0.

    Raises:
        ModelError: The runtime failed.
    """
    count = len(next(iter(samples.values())))
    start, size = 0, 1
    while start < count:
        found = runner.run_once({key: rows[start : start + size] for key, rows in samples.items()})
        yield found
        start += size
        if size == 1 and is_batch_free(runner.io):
            each = sum(rows.nbytes for rows in found.values())
            size = max(1, min(count, CAPTURE_BYTES // max(each, 1)))
