"""Where the raw nanoseconds of measurements are kept, and for how long."""

from __future__ import annotations

import shutil
from pathlib import Path


def prune_samples(folder: Path, max_bytes: int) -> int:
    """Remove the oldest measurements' samples until the rest fits; the newest always stays.

    Args:
        folder: Holds one folder per measurement.
        max_bytes: 0 for no limit.

    Returns:
        How many were removed.
    """
    if max_bytes <= 0 or not folder.is_dir():
        return 0
    kept = sorted(
        (path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
    )
    sizes = [sum(file.stat().st_size for file in path.iterdir()) for path in kept]
    removed = 0
    while removed < len(kept) - 1 and sum(sizes[removed:]) > max_bytes:
        shutil.rmtree(kept[removed], ignore_errors=True)
        removed += 1
    return removed
