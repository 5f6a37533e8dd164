"""Which chunks to ask for, and when: pure, with the time passed in.

Rules:
    1. At most `limit` chunks are outstanding. It starts at `window_chunks` and grows by one per
       window of good chunks while the round trip stays near the shortest one seen, so it grows on a
       link with a long round trip and not on one whose buffers are filling (the idea of TCP Vegas,
       Brakmo and Peterson 1995). A timeout halves it.
    2. The chunk that arrives is its own acknowledgement. One that does not arrive in time is asked
       for again. A chunk that fails its check is asked for again, `max_bad_chunks` times. The
       round trip of a chunk that was asked for twice says nothing, because nobody knows which
       request it answers (Karn and Partridge 1987).
    3. Requests are batched: a new one goes out when half the window is free.
    4. After a reconnect everything outstanding is forgotten and asked for again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from trimtab_protocol.errors import ErrorCode, TransientError, TrimtabError

RTT_INFLATION_LIMIT = 2.0
"""A round trip above this multiple of the shortest one means that a queue is building up."""


@dataclass(frozen=True)
class WindowSettings:
    """See `config.FetchSettings`; `max_bytes_per_s` is the deployment's rate cap."""

    window_chunks: int = 8
    max_window_chunks: int = 64
    chunk_timeout_s: float = 5.0
    max_bad_chunks: int = 3
    stall_timeout_s: float = 600.0
    max_bytes_per_s: int | None = None


class Window:
    """The state of one download.

    Args:
        missing: Indices that are lacking, in the order in which to ask.
        chunk_bytes: For the rate cap.
        settings: Limits.
        now_s: A monotonic clock's time.
    """

    def __init__(
        self, missing: list[int], chunk_bytes: int, settings: WindowSettings, now_s: float
    ) -> None:
        self._settings = settings
        self._chunk_bytes = chunk_bytes
        self._waiting = list(reversed(missing))  # taken from the end
        self._outstanding: dict[int, float] = {}
        self._bad: Counter[int] = Counter()
        self._lacking = set(missing)
        self._asked_again: set[int] = set()
        self._limit = settings.window_chunks
        self._good_since_growth = 0
        self._shortest_rtt_s = float("inf")
        self._last_good_s = now_s
        self._allowance_bytes = 0.0
        self._allowance_at_s = now_s

    @property
    def limit(self) -> int:
        """How many chunks may be outstanding now."""
        return self._limit

    @property
    def lacking_count(self) -> int:
        """How many chunks have not arrived yet."""
        return len(self._lacking)

    def is_lacking(self, index: int) -> bool:
        """Whether this chunk is still wanted; a repeat or a stranger is not."""
        return index in self._lacking

    def take(self, now_s: float) -> list[int]:
        """The chunks to ask for now; they count as outstanding from here on."""
        free = self._limit - len(self._outstanding)
        count = min(free, len(self._waiting), self._allowed(now_s))
        is_worth_a_request = not self._outstanding or count * 2 >= min(
            self._limit, len(self._waiting)
        )
        if count <= 0 or not is_worth_a_request:
            return []
        taken = [self._waiting.pop() for _ in range(count)]
        self._allowance_bytes -= count * self._chunk_bytes
        self._outstanding.update(dict.fromkeys(taken, now_s))
        return taken

    def accept(self, index: int, now_s: float) -> None:
        """A good chunk is on disk."""
        self._lacking.discard(index)
        self._last_good_s = now_s
        asked_s = self._outstanding.pop(index, None)
        if asked_s is None:
            if index in self._waiting:
                self._waiting.remove(index)
            return
        if index in self._asked_again:
            return
        rtt_s = now_s - asked_s
        self._shortest_rtt_s = min(self._shortest_rtt_s, rtt_s)
        self._good_since_growth += 1
        is_queueing = rtt_s > RTT_INFLATION_LIMIT * self._shortest_rtt_s
        if self._good_since_growth >= self._limit and not is_queueing:
            self._good_since_growth = 0
            self._limit = min(self._limit + 1, max(self._settings.max_window_chunks, self._limit))

    def refuse(self, index: int, error: TrimtabError) -> None:
        """A chunk came and was not good: ask again, or give up.

        Raises:
            TrimtabError: `error` itself, when it was not good for the last time allowed.
        """
        self._bad[index] += 1
        if self._bad[index] >= self._settings.max_bad_chunks:
            raise error
        if self._outstanding.pop(index, None) is not None:
            self._waiting.append(index)

    def expire(self, now_s: float) -> None:
        """Take back chunks that did not arrive in time.

        Raises:
            TransientError: No good chunk for `stall_timeout_s`; what has arrived stays on disk.
        """
        late = [
            index
            for index, asked_s in self._outstanding.items()
            if now_s - asked_s > self._settings.chunk_timeout_s
        ]
        for index in late:
            del self._outstanding[index]
            self._waiting.append(index)
        self._asked_again.update(late)
        if late:
            self._limit = max(1, self._limit // 2)
            self._good_since_growth = 0
        if now_s - self._last_good_s > self._settings.stall_timeout_s:
            raise TransientError(
                f"no chunk arrived for {self._settings.stall_timeout_s:.0f} s; "
                f"{self.lacking_count} are lacking",
                code=ErrorCode.TRANSIENT_DELIVERY,
            )

    def restart(self, now_s: float) -> None:
        """After a reconnect: nothing is outstanding any more, and the stall clock starts anew."""
        self._waiting.extend(self._outstanding)
        self._asked_again.update(self._outstanding)
        self._outstanding.clear()
        self._last_good_s = now_s

    def _allowed(self, now_s: float) -> int:
        rate = self._settings.max_bytes_per_s
        if rate is None:
            return len(self._waiting)
        elapsed_s = now_s - self._allowance_at_s
        self._allowance_at_s = now_s
        burst_bytes = float(max(rate, self._chunk_bytes))
        self._allowance_bytes = min(self._allowance_bytes + elapsed_s * rate, burst_bytes)
        return int(self._allowance_bytes // self._chunk_bytes)
