"""Property tests without a deadline: a loaded machine is no failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("trimtab", deadline=None, max_examples=60)
settings.load_profile("trimtab")
