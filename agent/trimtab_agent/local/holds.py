"""The holds of one model name: pure; `board` keeps them, behind its lock.

A hold ends by itself, and each holder has its own. Holds with less than PAUSE_S between them are one
series and end together, at the longest time allowed after the first began; then the name rests. So
an application that renews, or lets go and holds again, for ever cannot keep a device on an old
model for ever. Times are on the agent's monotonic clock.
"""

from __future__ import annotations

import math

from trimtab_protocol.errors import ErrorCode, TransientError

PAUSE_S = 1.0
"""Without a hold for so long a series is over: the decision thread looks several times within."""

REST_S = 60.0
"""After the longest series the name cannot be held for this long: an update goes through."""

MAX_HOLDERS = 16


class Holds:
    """See the module.

    Args:
        name: The model name.
        max_hold_s: The longest that a series may last.
    """

    def __init__(self, name: str, max_hold_s: float) -> None:
        self._name = name
        self._max_hold_s = max_hold_s
        self._ends_at_s: dict[str, float] = {}
        self._began_at_s = -math.inf
        self._over_at_s = -math.inf
        self._rests_until_s = -math.inf

    def until_s(self, now_s: float) -> float | None:
        """When the last hold ends; None if none stands."""
        end_s = max(self._ends_at_s.values(), default=now_s)
        return end_s if end_s > now_s else None

    def hold(self, holder: str, duration_s: float, now_s: float) -> float:
        """Hold, or renew the hold of a holder.

        Returns:
            For how long this holder holds now, in seconds.

        Raises:
            TransientError: `transient.busy`: too many hold, or the longest series is just over.
        """
        self._pass_time(now_s)
        if now_s < self._rests_until_s:
            raise TransientError(
                f"{self._name} was held for {self._max_hold_s:.0f} s and may be held again in "
                f"{self._rests_until_s - now_s:.0f} s: an update goes first",
                code=ErrorCode.TRANSIENT_BUSY,
            )
        if len(self._ends_at_s) >= MAX_HOLDERS and holder not in self._ends_at_s:
            raise TransientError(
                f"{self._name} has {MAX_HOLDERS} holders, which is the most: release one",
                code=ErrorCode.TRANSIENT_BUSY,
            )
        end_s = min(now_s + duration_s, self._began_at_s + self._max_hold_s)
        self._ends_at_s[holder] = end_s
        return end_s - now_s

    def release(self, holder: str, now_s: float) -> None:
        """End a hold, if there is one."""
        self._pass_time(now_s)
        self._ends_at_s.pop(holder, None)

    def _pass_time(self, now_s: float) -> None:
        """Let go of what has ended; where nothing is left, rest, or begin a new series."""
        if self._ends_at_s:
            self._over_at_s = min(now_s, max(self._ends_at_s.values()))
        self._ends_at_s = {who: end_s for who, end_s in self._ends_at_s.items() if end_s > now_s}
        must_end_s = self._began_at_s + self._max_hold_s
        is_pause_over = now_s >= self._over_at_s + PAUSE_S
        if self._ends_at_s or (now_s < must_end_s and not is_pause_over):
            return
        if self._over_at_s >= must_end_s or not is_pause_over:
            self._rests_until_s = must_end_s + REST_S
        self._began_at_s = now_s
