"""What LiteRT's profiler records, and when it is not believed."""

from __future__ import annotations

import pytest

from trimtab_agent.profile.litert_events import ProfilerEvent, order_events
from trimtab_protocol.errors import ModelError

NO_INDEX = 2**64 - 1


def one_run(*operators: ProfilerEvent, whole_us: int = 100) -> list[ProfilerEvent]:
    """The events of one inference in the order in which 2.3.0 gives them."""
    return [
        ProfilerEvent("LiteRT::Run[buffer registration]", 1, 22, 0),
        ProfilerEvent("invoke", 16, 140, NO_INDEX),
        ProfilerEvent("Invoke", 1, whole_us, 0),
        *operators,
        ProfilerEvent("Invoke", 32, 4294967296, NO_INDEX),
        ProfilerEvent("LiteRT::Run[Buffer sync]", 1, 20, 0),
    ]


CONV = ProfilerEvent("Convolution (NHWC, QC8) IGEMM", 8, 60, 0)
DENSE = ProfilerEvent("Fully Connected (NC, QS8, QC8W) GEMM", 8, 30, 1)


def test_only_operators_and_whole_runs_count() -> None:
    run_us, operators = order_events(one_run(CONV, DENSE) * 2, 2)
    assert run_us == (100.0, 100.0)
    assert [(row.op, row.durations_us) for row in operators] == [
        (CONV.tag, (60.0, 60.0)),
        (DENSE.tag, (30.0, 30.0)),
    ]


def test_only_builtin_operators_have_the_index_of_the_file() -> None:
    _, delegated = order_events(one_run(CONV), 1)
    _, builtin = order_events(one_run(ProfilerEvent("CONV_2D", 2, 60, 7)), 1)
    assert (delegated[0].node_index, delegated[0].provider) == (None, "delegate")
    assert (builtin[0].node_index, builtin[0].provider) == (7, "builtin")


def test_two_parts_of_a_delegate_with_the_same_index_stay_two_operators() -> None:
    _, operators = order_events(one_run(CONV, CONV, whole_us=150) * 2, 2)
    assert [row.durations_us for row in operators] == [(60.0, 60.0), (60.0, 60.0)]


@pytest.mark.parametrize(
    ("events", "runs", "words"),
    [
        (one_run(CONV), 2, "saw 1 runs where there were 2"),
        (one_run(CONV) + one_run(), 2, "missed operators"),
        (one_run(CONV, DENSE, whole_us=80), 1, "gives the operators 90 us"),
    ],
)
def test_events_that_contradict_each_other_are_refused(
    events: list[ProfilerEvent], runs: int, words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        order_events(events, runs)
