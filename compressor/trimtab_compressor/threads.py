"""How many threads the host uses: one, unless TRIMTAB_THREADS says more.

On a busy machine two OpenMP threads that spin for each other were over five times slower than one.
"""

from __future__ import annotations

import os

from trimtab_protocol.errors import ConfigError


def thread_count() -> int:
    """Threads for training and for the runtimes.

    Raises:
        ConfigError: TRIMTAB_THREADS is not a whole number of at least 1.
    """
    text = os.environ.get("TRIMTAB_THREADS", "1")
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"TRIMTAB_THREADS is '{text}'; give a whole number of at least 1")
    return int(text)
