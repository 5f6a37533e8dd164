"""Which chunks are asked for, and when: rows for each rule, and any order of events for all of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab_agent.window import Window, WindowSettings
from trimtab_protocol.errors import ErrorCode, TransientError, TrustError

CHUNK = 1024
BAD = TrustError("not the digest of the manifest", code=ErrorCode.TRUST_CHUNK_DIGEST)


def a_window(count: int, now_s: float = 0.0, **changes: Any) -> Window:
    return Window(list(range(count)), CHUNK, WindowSettings(**changes), now_s)


def test_the_first_request_fills_the_window_in_the_order_of_the_payload() -> None:
    assert a_window(20, window_chunks=8).take(0.0) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_a_payload_smaller_than_the_window_is_asked_for_at_once() -> None:
    window = a_window(3, window_chunks=8)
    assert window.take(0.0) == [0, 1, 2]
    assert window.take(1.0) == []


def test_a_new_request_goes_out_when_half_the_window_is_free() -> None:
    window = a_window(20, window_chunks=4)
    window.take(0.0)
    window.accept(0, 1.0)
    assert window.take(1.0) == []
    window.accept(1, 1.0)
    assert window.take(1.0) == [4, 5]


def test_the_last_chunk_does_not_wait_for_half_a_window() -> None:
    window = a_window(9, window_chunks=8)
    window.take(0.0)
    window.accept(0, 0.1)
    assert window.take(0.1) == [8]


def test_what_arrives_unasked_is_kept_and_not_asked_for() -> None:
    window = a_window(4, window_chunks=1, max_window_chunks=1)
    assert window.take(0.0) == [0]
    window.accept(2, 0.1)
    window.accept(0, 0.2)
    assert window.take(0.2) == [1]
    window.accept(1, 0.3)
    assert window.take(0.3) == [3]


def test_a_repeat_or_a_stranger_is_not_lacking() -> None:
    window = a_window(2)
    window.take(0.0)
    window.accept(0, 0.1)
    assert not window.is_lacking(0)
    assert not window.is_lacking(99)
    assert window.is_lacking(1)
    assert window.lacking_count == 1


def test_a_chunk_that_does_not_arrive_in_time_is_asked_for_again() -> None:
    window = a_window(2, chunk_timeout_s=5.0)
    window.take(0.0)
    window.expire(5.0)
    assert window.take(5.0) == []
    window.expire(5.1)
    assert sorted(window.take(5.1)) == [0, 1]


def test_a_timeout_halves_the_window_and_never_closes_it() -> None:
    window = a_window(100, window_chunks=8, chunk_timeout_s=1.0)
    limits = []
    for second in range(0, 12, 2):
        window.take(float(second))
        window.expire(second + 1.5)
        limits.append(window.limit)
    assert limits == [4, 2, 1, 1, 1, 1]


def test_many_late_chunks_at_once_halve_the_window_once() -> None:
    window = a_window(100, window_chunks=8, chunk_timeout_s=1.0)
    assert len(window.take(0.0)) == 8
    window.expire(2.0)
    assert window.limit == 4


def run_link(window: Window, rtt_s: list[float], now_s: float = 0.0) -> float:
    """One window of chunks after the other, each batch with its own round trip."""
    for rtt in rtt_s:
        batch = window.take(now_s)
        now_s += rtt
        for index in batch:
            window.accept(index, now_s)
    return now_s


def test_the_window_grows_by_one_per_window_on_a_link_with_a_steady_round_trip() -> None:
    window = a_window(1000, window_chunks=4)
    run_link(window, [0.3] * 5)
    assert window.limit == 9


def test_the_window_grows_no_further_than_its_bound() -> None:
    window = a_window(1000, window_chunks=4, max_window_chunks=6)
    run_link(window, [0.3] * 20)
    assert window.limit == 6


def test_a_bound_below_the_first_window_does_not_shrink_it() -> None:
    window = a_window(1000, window_chunks=8, max_window_chunks=4)
    run_link(window, [0.3] * 5)
    assert window.limit == 8


def test_the_window_does_not_grow_while_the_round_trip_grows() -> None:
    window = a_window(1000, window_chunks=4)
    now_s = run_link(window, [0.1])
    assert window.limit == 5
    run_link(window, [0.21, 0.25, 0.5, 1.0], now_s)
    assert window.limit == 5


def test_a_late_answer_to_the_first_request_is_not_taken_for_a_quick_one_to_the_second() -> None:
    window = a_window(1000, window_chunks=4, chunk_timeout_s=5.0)
    late = window.take(0.0)
    window.expire(5.1)
    again = window.take(5.1)
    assert set(again) <= set(late)
    now_s = 5.11  # ten milliseconds after the repeat: these are answers to the first request
    for index in late:
        window.accept(index, now_s)
    limit = window.limit
    run_link(window, [0.3] * 6, now_s)
    assert window.limit > limit


def test_after_a_reconnect_everything_outstanding_is_asked_for_again() -> None:
    window = a_window(4, window_chunks=8)
    window.take(0.0)
    window.accept(1, 0.1)
    window.restart(10.0)
    assert sorted(window.take(10.0)) == [0, 2, 3]


def test_after_a_reconnect_the_stall_clock_starts_anew() -> None:
    window = a_window(4, stall_timeout_s=30.0)
    window.take(0.0)
    window.restart(100.0)
    window.expire(125.0)
    with pytest.raises(TransientError):
        window.expire(130.1)


def test_no_good_chunk_for_too_long_ends_with_what_is_lacking() -> None:
    window = a_window(4, stall_timeout_s=30.0)
    window.take(0.0)
    window.accept(0, 5.0)
    window.expire(35.0)
    with pytest.raises(TransientError, match="3 are lacking") as caught:
        window.expire(35.1)
    assert caught.value.code is ErrorCode.TRANSIENT_DELIVERY


def test_a_bad_chunk_is_asked_for_again_until_its_last_chance() -> None:
    window = a_window(1, max_bad_chunks=3)
    for _ in range(2):
        assert window.take(0.0) == [0]
        window.refuse(0, BAD)
    assert window.take(0.0) == [0]
    with pytest.raises(TrustError) as caught:
        window.refuse(0, BAD)
    assert caught.value is BAD


def test_bad_chunks_are_counted_for_each_index() -> None:
    window = a_window(3, max_bad_chunks=2)
    window.take(0.0)
    for index in range(3):
        window.refuse(index, BAD)
    assert sorted(window.take(0.0)) == [0, 1, 2]


def test_a_bad_chunk_that_was_late_too_is_asked_for_once() -> None:
    window = a_window(2, chunk_timeout_s=1.0, window_chunks=2)
    window.take(0.0)
    window.expire(2.0)
    window.refuse(0, BAD)
    window.restart(2.0)
    asked = window.take(2.0)
    window.accept(asked[0], 2.1)
    assert sorted(asked + window.take(2.1)) == [0, 1]


def test_the_rate_cap_holds_over_any_time() -> None:
    rate = 10 * CHUNK
    window = a_window(10_000, window_chunks=64, max_bytes_per_s=rate)
    asked = 0
    for step in range(1, 2001):
        now_s = step * 0.05
        for index in window.take(now_s):
            asked += 1
            window.accept(index, now_s)
        assert asked * CHUNK <= rate * now_s + rate
    assert asked * CHUNK >= 0.9 * rate * 100.0


def test_a_cap_below_one_chunk_a_second_still_delivers() -> None:
    window = a_window(3, max_bytes_per_s=CHUNK // 4)
    asked = []
    for second in range(20):
        for index in window.take(float(second)):
            asked.append((index, second))
            window.accept(index, float(second))
    assert asked == [(0, 4), (1, 8), (2, 12)]


def test_time_without_use_saves_up_one_second_and_no_more() -> None:
    window = a_window(1000, window_chunks=500, max_bytes_per_s=4 * CHUNK)
    assert len(window.take(3600.0)) == 4


class Link:
    """Any behaviour of a link, and what must hold after each event."""

    def __init__(self, count: int, limit: int, rate: int | None) -> None:
        self.window = a_window(
            count,
            window_chunks=limit,
            max_window_chunks=max(limit, 16),
            chunk_timeout_s=2.0,
            max_bad_chunks=10**6,
            stall_timeout_s=10.0**9,
            max_bytes_per_s=rate,
        )
        self.now_s = 0.0
        self.outstanding: dict[int, float] = {}
        self.arrived: set[int] = set()
        self.ask()

    def ask(self) -> None:
        taken = self.window.take(self.now_s)
        assert len(set(taken)) == len(taken), "asked twice in one request"
        assert not set(taken) & self.arrived, "asked for what is here"
        assert not set(taken) & set(self.outstanding), "asked for what is on its way"
        self.outstanding |= dict.fromkeys(taken, self.now_s)
        if taken:
            assert len(self.outstanding) <= self.window.limit

    def arrive(self, index: int, *, is_good: bool) -> None:
        if not self.window.is_lacking(index):
            return
        self.outstanding.pop(index, None)
        if is_good:
            self.window.accept(index, self.now_s)
            self.arrived.add(index)
        else:
            self.window.refuse(index, BAD)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.window.expire(self.now_s)
        late = [i for i, asked_s in self.outstanding.items() if self.now_s - asked_s > 2.0]
        for index in late:
            del self.outstanding[index]

    def happen(self, event: str, number: int, count: int) -> None:
        if event == "time":
            self.pass_time(number / 10.0)
        elif event == "reconnect":
            self.reconnect()
        elif event == "stranger":
            self.arrive(number % count, is_good=True)
        elif self.outstanding:
            index = sorted(self.outstanding)[number % len(self.outstanding)]
            self.arrive(index, is_good=event == "arrive")
        self.ask()

    def reconnect(self) -> None:
        self.window.restart(self.now_s)
        self.outstanding.clear()


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "bad", "stranger", "time", "reconnect"]), st.integers(0, 99)
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(1, 40),
    limit=st.integers(1, 12),
    rate=st.one_of(st.none(), st.integers(1024, 50_000)),
    events=EVENTS,
)
def test_whatever_a_link_does_nothing_is_asked_twice_and_everything_arrives(
    count: int, limit: int, rate: int | None, events: list[tuple[str, int]]
) -> None:
    link = Link(count, limit, rate)
    for event, number in events:
        link.happen(event, number, count)
    for _ in range(count * 60):  # from here on the link is good
        if not link.window.lacking_count:
            break
        link.pass_time(0.1)
        link.ask()
        for index in list(link.outstanding):
            link.arrive(index, is_good=True)
    assert link.window.lacking_count == 0
    assert link.arrived == set(range(count))
