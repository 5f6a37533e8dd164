"""What applications say of a new model, judged by a table."""

from __future__ import annotations

import pytest

from trimtab_agent.in_use import Use
from trimtab_agent.in_use_verdict import Known, UseVerdict, judge_use, know_before, know_since
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.messages import Policy

TIMEOUT_S = 10.0
SINCE_S = 1000.0
POLICY = Policy(heartbeat_timeout_s=TIMEOUT_S, max_app_p90_ratio=1.5)
WATCHED = (Known(application="camera", is_watched=True, p90_high_ms=20.0),)
UNWATCHED = (Known(application="camera", p90_high_ms=20.0),)
FINE, OPEN = UseVerdict(), UseVerdict(is_open=True)


def beat(at_s: float) -> dict[str, Use]:
    return {"camera": Use(heartbeat_at_s=at_s)}


def judge(
    known: tuple[Known, ...], uses: dict[str, Use], after_s: float, policy: Policy = POLICY
) -> UseVerdict:
    return judge_use(known, uses, policy, since_s=SINCE_S, now_s=SINCE_S + after_s)


@pytest.mark.parametrize(
    ("known", "uses", "after_s", "expected"),
    [
        pytest.param((), {}, 1e6, FINE, id="no application at all"),
        pytest.param(UNWATCHED, {}, 1e6, FINE, id="it had been silent for long"),
        pytest.param(WATCHED, {}, 9.9, OPEN, id="it may still come"),
        pytest.param(WATCHED, beat(SINCE_S + 9.9), 19.8, FINE, id="it came in time"),
    ],
)
def test_who_is_quiet_for_a_reason_is_left_alone(
    known: tuple[Known, ...], uses: dict[str, Use], after_s: float, expected: UseVerdict
) -> None:
    assert judge(known, uses, after_s) == expected


@pytest.mark.parametrize(
    ("uses", "after_s", "what"),
    [
        ({}, 10.0, "camera sent no heartbeat with the new model: 10.0 s, 10 s are allowed"),
        (beat(SINCE_S + 5), 15.0, "camera fell silent: 10.0 s"),
        ({"lamp": Use(heartbeat_at_s=SINCE_S + 9)}, 10.0, "camera sent no heartbeat"),
    ],
)
def test_a_watched_application_that_falls_silent_brings_the_old_model_back(
    uses: dict[str, Use], after_s: float, what: str
) -> None:
    """[P-5.14]"""
    error = judge(WATCHED, uses, after_s).error
    assert error is not None
    assert error.code is ErrorCode.MODEL_HEARTBEAT
    assert what in error.message


def test_without_a_timeout_nobody_is_watched() -> None:
    policy = Policy()
    assert judge(WATCHED, {}, 1e6, policy) == FINE
    before = know_before(beat(SINCE_S), policy, SINCE_S)
    assert before == (Known(application="camera"),)


@pytest.mark.parametrize(("ago_s", "is_watched"), [(0, True), (9.9, True), (10, False)])
def test_only_who_was_heard_lately_is_watched_from_the_beginning(
    ago_s: float, is_watched: bool
) -> None:
    uses = {"camera": Use(heartbeat_at_s=SINCE_S - ago_s, p90_high_ms=3.0), "mute": Use(starts=1)}
    assert know_before(uses, POLICY, SINCE_S) == (
        Known(application="camera", is_watched=is_watched, p90_high_ms=3.0),
        Known(application="mute"),
    )


def test_who_is_heard_with_the_new_model_is_watched_from_then_on() -> None:
    uses = beat(SINCE_S + 1) | {"lamp": Use(heartbeat_at_s=SINCE_S + 2), "mute": Use(starts=1)}
    assert know_since(UNWATCHED, uses) == (
        Known(application="camera", is_watched=True, p90_high_ms=20.0),
        Known(application="lamp", is_watched=True),
    )
    assert know_since(WATCHED, {}) == WATCHED


@pytest.mark.parametrize(
    ("low_ms", "known", "policy", "is_slow"),
    [
        pytest.param(30.1, UNWATCHED, POLICY, True, id="surely above"),
        pytest.param(30.0, UNWATCHED, POLICY, False, id="at the limit"),
        pytest.param(None, UNWATCHED, POLICY, False, id="too few now"),
        pytest.param(99.0, (Known(application="camera"),), POLICY, False, id="too few before"),
        pytest.param(99.0, (Known(application="lamp", p90_high_ms=1.0),), POLICY, False,
                     id="another application's"),
        pytest.param(99.0, UNWATCHED, Policy(), False, id="not asked for"),
    ],
)  # fmt: skip
def test_an_application_is_compared_with_itself(
    low_ms: float | None, known: tuple[Known, ...], policy: Policy, is_slow: bool
) -> None:
    """[P-5.15]"""
    uses = {"camera": Use(inferences=500, p90_ms=low_ms, p90_low_ms=low_ms)}
    error = judge(known, uses, 1, policy).error
    assert (error is not None) is is_slow
    if error is not None:
        assert error.code is ErrorCode.MODEL_SLOW_IN_USE
        assert "camera: p90 of 500 inferences is at least 30.1 ms" in error.message


@pytest.mark.parametrize(("starts", "is_crash_loop"), [(1, False), (3, False), (4, True)])
def test_an_application_that_starts_again_and_again_is_in_a_crash_loop(
    starts: int, is_crash_loop: bool
) -> None:
    """[P-5.9]: the first start is the update itself."""
    error = judge((), {"camera": Use(starts=starts)}, 1, Policy()).error
    assert (error is not None and error.code is ErrorCode.MODEL_CRASH) is is_crash_loop
    assert judge((), {"camera": Use(starts=starts)}, 1, Policy(max_starts=10)).error is None
