"""What the decision thread and the applications know of each other, behind one lock.

The decision thread publishes views and asks about holds and use; the threads of the API read views
and write holds and use. Nothing here touches the disk or waits for it. Rules:

    1. A change number says "look again", nothing more; it differs after a restart of the agent.
    2. A hold ends by itself, and a series of holds ends too, see `holds`.
    3. Who was told that it holds a name sees no swap before that ends: while one is under way nobody
       can hold.
    4. What applications say is kept for files that the name still has, and forgotten at a restart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from trimtab_agent.in_use import Use
from trimtab_agent.local.histogram import Histogram
from trimtab_agent.local.holds import Holds
from trimtab_agent.local.views import ModelView
from trimtab_protocol.errors import ErrorCode, ProtocolError, TransientError

MAX_APPLICATIONS = 16
MAX_WAITERS = 16
"""Fewer than the connections: whoever waits must not keep heartbeats out."""

LATENCIES_FOR_S = 3600.0
"""Percentiles are of the latencies of the last one to two such times."""

WAIT_SLICE_S = 1.0
"""How often somebody who waits for a change is looked after."""


@dataclass
class _Said:
    """What one application said of one file."""

    starts: int = 0
    started_at_s: float | None = None
    heartbeat_at_s: float | None = None
    newer: Histogram = field(default_factory=Histogram)
    older: Histogram = field(default_factory=Histogram)
    newer_since_s: float = 0.0

    def add(self, latencies: dict[int, int], now_s: float) -> None:
        """Count latencies; those of long ago give way."""
        if now_s - self.newer_since_s >= LATENCIES_FOR_S:
            self.older, self.newer, self.newer_since_s = self.newer, Histogram(), now_s
        self.newer.merge(latencies)

    def to_use(self) -> Use:
        """As decisions see it."""
        latencies = Histogram()
        latencies.merge(self.older.counts())
        latencies.merge(self.newer.counts())
        low_ms, high_ms = latencies.percentile_bounds_ms(0.9) or (None, None)
        return Use(
            starts=self.starts,
            started_at_s=self.started_at_s,
            heartbeat_at_s=self.heartbeat_at_s,
            inferences=latencies.total,
            p50_ms=latencies.percentile_ms(0.5),
            p90_ms=latencies.percentile_ms(0.9),
            p90_low_ms=low_ms,
            p90_high_ms=high_ms,
        )


class Board:
    """See the module. Implements `InUse`.

    Args:
        max_hold_s: How long a name may be held without a pause.
        monotonic_s: The agent's monotonic clock.
    """

    def __init__(
        self, max_hold_s: float, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_hold_s = max_hold_s
        self._monotonic_s = monotonic_s
        self._changed = threading.Condition()
        self._change = time.time_ns() // 1000
        self._is_closed = False
        self._waiters = 0
        self._views: dict[str, ModelView] = {}
        self._said: dict[tuple[str, str], dict[str, _Said]] = {}
        self._holds: dict[str, Holds] = {}
        self._swapping: set[str] = set()

    # For the decision thread

    def publish(self, views: dict[str, ModelView]) -> None:
        """Show new views; whoever waits for a change wakes up if there is one."""
        with self._changed:
            self._swapping.clear()
            if views == self._views:
                return
            self._views = dict(views)
            self._change += 1
            kept = {(name, sha256) for name, view in views.items() for sha256 in view.sha256s()}
            self._said = {key: said for key, said in self._said.items() if key in kept}
            self._holds = {name: holds for name, holds in self._holds.items() if name in views}
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any longer."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def held_until_s(self, name: str) -> float | None:
        """Until when the updates of a name are held, on the monotonic clock; None if they are not."""
        with self._changed:
            return self._held_until_s(name)

    def may_swap(self, name: str) -> bool:
        """Whether nobody holds updates; if so nobody can until the next `publish`."""
        with self._changed:
            if self._held_until_s(name) is not None:
                return False
            self._swapping.add(name)
            return True

    def uses_of(self, name: str, sha256: str) -> dict[str, Use]:
        """What each application said of a model file."""
        with self._changed:
            said = self._said.get((name, sha256), {})
            return {application: row.to_use() for application, row in said.items()}

    def forget(self, name: str, sha256: str) -> None:
        """What was said of a model file until now counts no longer."""
        with self._changed:
            self._said.pop((name, sha256), None)

    # For applications

    def views(self) -> tuple[int, dict[str, ModelView]]:
        """The change number, and every name."""
        with self._changed:
            return self._change, dict(self._views)

    def view(self, name: str) -> ModelView:
        """One name.

        Raises:
            ProtocolError: `protocol.unknown`: the device has no such model name.
        """
        with self._changed:
            return self._view(name)

    def wait_for_change(self, since: int, timeout_s: float, is_gone: Callable[[], bool]) -> None:
        """Wait until the change number is another one, or the time is over, or nobody listens.

        Raises:
            TransientError: `transient.busy`, too many wait already.
        """
        until_s = time.monotonic() + timeout_s
        with self._changed:
            if self._waiters >= MAX_WAITERS:
                raise TransientError(
                    f"{MAX_WAITERS} wait for a change, which is the most: ask again in a second",
                    code=ErrorCode.TRANSIENT_BUSY,
                )
            self._waiters += 1
            try:
                while self._change == since and not self._is_closed:
                    left_s = until_s - time.monotonic()
                    if left_s <= 0 or is_gone():
                        return
                    self._changed.wait(min(left_s, WAIT_SLICE_S))
            finally:
                self._waiters -= 1

    def hold(self, name: str, holder: str, duration_s: float) -> float:
        """Hold the updates of a name.

        Args:
            name: The model name.
            holder: Who holds; each holder has one hold, and asking again replaces it.
            duration_s: Asked for; cut where the longest time allowed ends.

        Returns:
            For how long this holder holds now, in seconds.

        Raises:
            ProtocolError: `protocol.unknown`, no such model name.
            TransientError: `transient.busy`: a swap is under way, too many hold, or the name rests
                after its longest hold. Come back later.
        """
        with self._changed:
            view = self._view(name)
            if name in self._swapping or view.is_activating:
                raise TransientError(
                    f"{name} is being updated at this moment: ask again in a second",
                    code=ErrorCode.TRANSIENT_BUSY,
                )
            holds = self._holds.setdefault(name, Holds(name, self._max_hold_s))
            return holds.hold(holder, duration_s, self._monotonic_s())

    def release(self, name: str, holder: str) -> None:
        """End a hold, if there is one.

        Raises:
            ProtocolError: `protocol.unknown`, no such model name.
        """
        with self._changed:
            self._view(name)
            if name in self._holds:
                self._holds[name].release(holder, self._monotonic_s())

    def started(self, name: str, sha256: str, application: str) -> bool:
        """An application loaded a file.

        Returns:
            Whether the file is the active one.

        Raises:
            ProtocolError: `protocol.unknown`, no such name; `protocol.conflict`, not a file of it.
            TransientError: `transient.busy`, too many applications use the file.
        """
        with self._changed:
            said = self._say(name, sha256, application)
            said.starts += 1
            said.started_at_s = self._monotonic_s()
            return self._is_active(name, sha256)

    def heartbeat(self, name: str, sha256: str, application: str) -> bool:
        """An application works with a file; otherwise as `started`."""
        with self._changed:
            self._say(name, sha256, application).heartbeat_at_s = self._monotonic_s()
            return self._is_active(name, sha256)

    def add_latencies(
        self, name: str, sha256: str, application: str, latencies: dict[int, int]
    ) -> bool:
        """An application reports latencies by bucket; otherwise as `started`.

        Raises:
            ValueError: A bucket does not exist.
        """
        with self._changed:
            self._say(name, sha256, application).add(latencies, self._monotonic_s())
            return self._is_active(name, sha256)

    # With the lock held

    def _held_until_s(self, name: str) -> float | None:
        holds = self._holds.get(name)
        return holds.until_s(self._monotonic_s()) if holds is not None else None

    def _view(self, name: str) -> ModelView:
        view = self._views.get(name)
        if view is None:
            names = ", ".join(sorted(self._views)[:10]) or "none"
            raise ProtocolError(
                f"this device has no model {name!r}; it has: {names}",
                code=ErrorCode.PROTOCOL_UNKNOWN,
            )
        return view

    def _say(self, name: str, sha256: str, application: str) -> _Said:
        if sha256 not in self._view(name).sha256s():
            raise ProtocolError(
                f"{sha256[:12]}… is no file of {name} any more: ask for the model and load it anew",
                code=ErrorCode.PROTOCOL_CONFLICT,
            )
        said = self._said.setdefault((name, sha256), {})
        if len(said) >= MAX_APPLICATIONS and application not in said:
            raise TransientError(
                f"{MAX_APPLICATIONS} applications use {name}, which is the most: give each a name "
                "that stays over its restarts",
                code=ErrorCode.TRANSIENT_BUSY,
            )
        return said.setdefault(application, _Said(newer_since_s=self._monotonic_s()))

    def _is_active(self, name: str, sha256: str) -> bool:
        active = self._view(name).active
        return active is not None and active.sha256 == sha256
