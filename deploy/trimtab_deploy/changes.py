"""Tells those who wait (long polling) that something has changed."""

from __future__ import annotations

import asyncio


class Changes:
    """A bell. Take `next_ring` *before* looking, so that nothing between is missed."""

    def __init__(self) -> None:
        self._ring = asyncio.Event()

    def next_ring(self) -> asyncio.Event:
        """Set at the next change."""
        return self._ring

    def announce(self) -> None:
        """Something has changed."""
        ring, self._ring = self._ring, asyncio.Event()
        ring.set()
