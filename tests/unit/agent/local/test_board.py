"""What the decision thread and the applications know of each other."""

from __future__ import annotations

import threading
import time

import pytest

from support.agent_rig import SimulatedClock
from support.local_views import SHA, a_view
from trimtab_agent.in_use import NobodyAsks, Use
from trimtab_agent.local import board as board_module
from trimtab_agent.local.board import LATENCIES_FOR_S, MAX_APPLICATIONS, Board
from trimtab_agent.local.holds import MAX_HOLDERS, PAUSE_S, REST_S
from trimtab_protocol.errors import ErrorCode, ProtocolError, TransientError
from trimtab_protocol.lifecycle import DeploymentState

HOUR_S = 3600.0


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock()


@pytest.fixture
def board(clock: SimulatedClock) -> Board:
    made = Board(HOUR_S, clock.monotonic_s)
    made.publish({"digits": a_view(2)})
    return made


def test_a_hold_ends_by_itself(board: Board, clock: SimulatedClock) -> None:
    assert board.held_until_s("digits") is None
    assert board.hold("digits", "camera", 300) == 300
    assert board.held_until_s("digits") == clock.now() + 300
    clock.pass_time(300)
    assert board.held_until_s("digits") is None


def test_of_several_holders_the_last_end_counts_and_each_releases_its_own(board: Board) -> None:
    board.hold("digits", "camera", 300)
    board.hold("digits", "lamp", 60)
    board.release("digits", "camera")
    assert board.held_until_s("digits") is not None, "the lamp still holds"
    board.release("digits", "lamp")
    board.release("digits", "nobody")
    assert board.held_until_s("digits") is None


def test_holds_that_are_renewed_for_ever_end_together_and_let_an_update_through(
    board: Board, clock: SimulatedClock
) -> None:
    began_s = clock.now()
    while clock.now() < began_s + HOUR_S:
        held_s = board.hold("digits", "camera", 600)
        assert clock.now() + held_s <= began_s + HOUR_S
        clock.pass_time(min(held_s, 300))
    with pytest.raises(TransientError, match="an update goes first") as caught:
        board.hold("digits", "camera", 600)
    assert caught.value.code is ErrorCode.TRANSIENT_BUSY
    assert board.held_until_s("digits") is None
    clock.pass_time(REST_S)
    assert board.hold("digits", "camera", 600) == 600


def test_a_hold_with_a_pause_before_it_may_be_as_long_as_the_first(
    board: Board, clock: SimulatedClock
) -> None:
    board.hold("digits", "camera", 1800)
    clock.pass_time(1801)
    assert board.hold("digits", "camera", HOUR_S) == HOUR_S


@pytest.mark.parametrize("pause_s", [0.001, PAUSE_S - 0.1])
def test_who_lets_go_only_to_hold_again_at_once_does_not_begin_anew(
    board: Board, clock: SimulatedClock, pause_s: float
) -> None:
    began_s = clock.now()
    while clock.now() < began_s + HOUR_S - 600:
        assert board.hold("digits", "camera", 300) == 300
        clock.pass_time(100)
        board.release("digits", "camera")
        clock.pass_time(pause_s)
    assert board.hold("digits", "camera", HOUR_S) == pytest.approx(began_s + HOUR_S - clock.now())
    clock.pass_time(began_s + HOUR_S - clock.now() - pause_s / 2)
    board.release("digits", "camera")
    clock.pass_time(pause_s)
    for _ in range(2):
        with pytest.raises(TransientError, match="an update goes first"):
            board.hold("digits", "camera", 1)
    clock.pass_time(REST_S)
    assert board.hold("digits", "camera", 600) == 600


def test_after_a_pause_that_an_update_can_use_a_hold_begins_anew(
    board: Board, clock: SimulatedClock
) -> None:
    board.hold("digits", "camera", HOUR_S)
    clock.pass_time(HOUR_S - 10)
    board.release("digits", "camera")
    clock.pass_time(PAUSE_S)
    assert board.hold("digits", "lamp", HOUR_S) == HOUR_S


def test_after_the_longest_hold_the_name_rests_although_nobody_asked_at_once(
    board: Board, clock: SimulatedClock
) -> None:
    board.hold("digits", "camera", HOUR_S)
    clock.pass_time(HOUR_S + REST_S - 1)
    with pytest.raises(TransientError, match="again in 1 s"):
        board.hold("digits", "camera", 600)
    clock.pass_time(1)
    assert board.hold("digits", "camera", 600) == 600


def test_a_series_that_others_go_on_with_is_not_over(board: Board, clock: SimulatedClock) -> None:
    board.hold("digits", "camera", 600)
    board.hold("digits", "lamp", 1800)
    clock.pass_time(100)
    board.release("digits", "camera")
    clock.pass_time(PAUSE_S)
    assert board.hold("digits", "camera", HOUR_S) == HOUR_S - 100 - PAUSE_S


def test_holders_are_bounded(board: Board) -> None:
    for number in range(MAX_HOLDERS):
        board.hold("digits", f"h{number}", 60)
    board.hold("digits", "h0", 90)
    with pytest.raises(TransientError, match="16 holders"):
        board.hold("digits", "one too many", 60)


def test_what_applications_say_is_known_by_file(board: Board, clock: SimulatedClock) -> None:
    started_s = clock.now()
    assert board.started("digits", SHA[2], "camera")
    clock.pass_time(5)
    assert board.heartbeat("digits", SHA[2], "camera")
    assert board.heartbeat("digits", SHA[2], "lamp")
    assert board.add_latencies("digits", SHA[2], "camera", {80: 10, 90: 1})
    uses = board.uses_of("digits", SHA[2])
    assert uses["lamp"] == Use(heartbeat_at_s=clock.now())
    use = uses["camera"]
    assert (use.starts, use.started_at_s, use.heartbeat_at_s) == (1, started_s, clock.now())
    assert use.inferences == 11
    assert use.p50_ms == use.p90_ms == pytest.approx(0.001 * 2 ** (80.5 / 8))
    assert not board.heartbeat("digits", SHA[1], "camera"), "the last good one is not active"
    assert board.uses_of("digits", "f" * 64) == {}
    board.forget("digits", SHA[2])
    assert board.uses_of("digits", SHA[2]) == {}
    assert list(board.uses_of("digits", SHA[1])) == ["camera"]


def test_percentiles_are_of_the_last_hour_or_two(board: Board, clock: SimulatedClock) -> None:
    def inferences() -> int:
        return board.uses_of("digits", SHA[2])["camera"].inferences

    for passed_s, expected in ((0, 10), (LATENCIES_FOR_S - 1, 20), (1, 30), (LATENCIES_FOR_S, 20)):
        clock.pass_time(passed_s)
        board.add_latencies("digits", SHA[2], "camera", {80: 10})
        assert inferences() == expected


def test_applications_are_bounded(board: Board) -> None:
    for number in range(MAX_APPLICATIONS):
        board.heartbeat("digits", SHA[2], f"a{number}")
    board.heartbeat("digits", SHA[2], "a0")
    with pytest.raises(TransientError, match="16 applications"):
        board.started("digits", SHA[2], "one too many")


def test_who_asks_while_a_swap_is_under_way_cannot_hold(board: Board) -> None:
    assert board.may_swap("digits")
    with pytest.raises(TransientError, match="at this moment"):
        board.hold("digits", "camera", 60)
    board.publish({"digits": a_view(2)})
    assert board.hold("digits", "camera", 60) == 60
    assert not board.may_swap("digits")
    assert board.hold("digits", "lamp", 60) == 60, "no swap was begun"


def test_who_asks_after_a_kill_in_a_swap_cannot_hold_before_it_is_over(board: Board) -> None:
    view = a_view(2)
    assert view.deployment is not None
    swapping = view.deployment.model_copy(update={"state": DeploymentState.ACTIVATING})
    board.publish({"digits": view.model_copy(update={"deployment": swapping})})
    with pytest.raises(TransientError, match="at this moment"):
        board.hold("digits", "camera", 60)


def test_a_file_that_a_name_no_longer_has_is_refused_and_forgotten(board: Board) -> None:
    board.started("digits", SHA[1], "camera")
    board.publish({"digits": a_view(3)})
    assert board.uses_of("digits", SHA[1]) == {}
    with pytest.raises(ProtocolError, match="no file of digits") as caught:
        board.heartbeat("digits", SHA[1], "camera")
    assert caught.value.code is ErrorCode.PROTOCOL_CONFLICT


def test_a_name_that_nobody_knows_is_said_with_those_that_there_are(board: Board) -> None:
    for act in (
        lambda: board.view("faces"),
        lambda: board.hold("faces", "camera", 60),
        lambda: board.release("faces", "camera"),
        lambda: board.started("faces", SHA[1], "camera"),
    ):
        with pytest.raises(ProtocolError, match="it has: digits") as caught:
            act()
        assert caught.value.code is ErrorCode.PROTOCOL_UNKNOWN


def test_who_waits_wakes_up_at_a_change_and_not_at_the_same_state_again(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "WAIT_SLICE_S", 60.0)
    change, _ = board.views()
    woken: list[float] = []

    def wait() -> None:
        board.wait_for_change(change, 20, lambda: False)
        woken.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    board.publish({"digits": a_view(2)})
    thread.join(0.2)
    assert not woken, "nothing changed"
    board.publish({"digits": a_view(3)})
    thread.join(5)
    assert woken
    assert board.views()[0] != change


@pytest.mark.parametrize("how", ["timeout", "gone", "closed", "of another life"])
def test_waiting_ends_when_it_is_in_vain(board: Board, how: str) -> None:
    since = board.views()[0] + (1 if how == "of another life" else 0)
    if how == "closed":
        board.close()
    began_s = time.monotonic()
    board.wait_for_change(since, 0.05 if how == "timeout" else 20, lambda: how == "gone")
    assert time.monotonic() - began_s < 5


def test_change_numbers_of_two_lives_differ() -> None:
    first = Board(HOUR_S)
    second = Board(HOUR_S)
    assert first.views()[0] != second.views()[0]


def test_an_agent_without_the_api_is_held_by_nobody() -> None:
    nobody = NobodyAsks()
    assert nobody.held_until_s("digits") is None
    assert nobody.may_swap("digits")
    assert nobody.uses_of("digits", SHA[1]) == {}
