"""What `make bench-agent` makes of the times it took: ratios, differences, verdicts."""

from __future__ import annotations

import pytest

from support.bench_figures import (
    Figure,
    Spread,
    agreement_figure,
    complain,
    differences,
    limit_figure,
    ratio_of_medians,
    render,
    repeat_figure,
    side_by_side,
)
from support.idle_process import MachineUse


def test_a_ratio_is_that_of_the_medians_and_lies_in_its_interval() -> None:
    found = ratio_of_medians([4.0, 4.2, 9.0], [2.0, 2.1, 2.0])
    assert found.value == pytest.approx(2.1)
    assert found.low <= found.value <= found.high
    assert found.high == pytest.approx(4.5)


def test_rounds_are_drawn_as_pairs_so_that_a_drift_of_both_does_not_widen_the_interval() -> None:
    drift = [1.0, 2.0, 3.0, 4.0, 5.0]
    found = ratio_of_medians(drift, [2 * value for value in drift])
    assert (found.low, found.value, found.high) == (0.5, 0.5, 0.5)


def test_the_interval_leaves_out_the_rarest_draws() -> None:
    firsts = [1.0 + number / 100 for number in range(7)]
    found = ratio_of_medians(firsts, [1.0] * 7)  # 1 draw in 100 has the largest as its median
    assert firsts[0] < found.low < found.value < found.high < firsts[-1]


def test_one_round_has_an_interval_of_no_width() -> None:
    assert ratio_of_medians([3.0], [2.0]) == Spread(1.5, 1.5, 1.5)


@pytest.mark.parametrize("seconds", [[], [1.0, 2.0]])
def test_rounds_that_do_not_pair_up_are_refused(seconds: list[float]) -> None:
    with pytest.raises(ValueError, match=r"round|shorter|longer"):
        ratio_of_medians([1.0] if seconds else [], seconds)


def test_measurements_that_err_to_different_sides_do_not_cancel_out() -> None:
    found = differences([(1.0, 1.1), (1.1, 1.0), (1.0, 1.0)])
    assert found.value == pytest.approx(0.1)
    assert found.low == 0.0
    assert found.high == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("value", "is_met"), [(1.0, True), (1.029, True), (0.971, True), (1.031, False), (0.969, False)]
)
def test_agreement_is_asked_for_on_both_sides_of_one(value: float, is_met: bool) -> None:
    found = agreement_figure("a / b", Spread(value, value, value), 0.03, "note")
    assert found.is_met is is_met
    assert found.target == "1 ± 0.03"


@pytest.mark.parametrize(("low", "high"), [(0.9, 1.01), (0.99, 1.1)])
def test_an_interval_that_reaches_past_the_target_is_said(low: float, high: float) -> None:
    found = agreement_figure("a / b", Spread(1.0, low, high), 0.03, "2 ms and 2 ms")
    assert found.is_met
    assert found.note == "2 ms and 2 ms; the interval reaches past the target"


def test_repeatability_is_met_up_to_its_bound() -> None:
    assert repeat_figure("twice", Spread(0.03, 0.0, 0.2), 0.03, "").is_met
    assert not repeat_figure("twice", Spread(0.031, 0.0, 0.2), 0.03, "").is_met
    assert repeat_figure("loops", Spread(0.5, 0.0, 0.9), None, "") == Figure(
        "loops", "50.0% (0.0% to 90.0%)"
    )


def test_rounds_of_one_timer_are_compared_in_pairs_that_share_nothing() -> None:
    assert side_by_side([1.0, 2.0, 3.0, 4.0, 5.0]) == [(1.0, 2.0), (3.0, 4.0)]


def test_a_loop_that_does_not_repeat_itself_says_that_the_machine_changes_its_speed() -> None:
    (complaint,) = complain(0.0, 0.0, 0.0, [0.01, 0.139])
    assert "differed from the next one by 13.9%" in complaint
    assert complain(0.0, 0.0, 0.0, [0.03]) == ()


def test_a_limit_is_met_up_to_it_and_without_one_there_is_no_verdict() -> None:
    assert limit_figure("PSS", 28.0, 28.0) == Figure("PSS", "28.0 MB", "≤ 28.0 MB", True)
    assert limit_figure("PSS", 28.1, 28.0).is_met is False
    assert limit_figure("USS", 20.0, None) == Figure("USS", "20.0 MB")


@pytest.mark.parametrize(
    ("load", "others", "steal", "words"),
    [
        (0.6, 0.0, 0.0, "load average 0.60"),
        (0.0, 0.2, 0.0, "other processes kept 0.20 cores busy"),
        (0.0, 0.0, 0.02, "the hypervisor took 2.0%"),
    ],
)
def test_each_disturbance_is_a_complaint(
    load: float, others: float, steal: float, words: str
) -> None:
    (complaint,) = complain(load, others, steal)
    assert words in complaint
    assert complain(0.5, 0.1, 0.01) == ()


def test_others_are_who_we_did_not_start() -> None:
    before = MachineUse(elapsed_s=100, busy_s=50, steal_s=1, own_s=10)
    use = MachineUse(elapsed_s=110, busy_s=57, steal_s=1, own_s=15).since(before)
    assert use.others_cores == pytest.approx(0.2)
    assert use.steal_ratio == 0
    assert MachineUse(10, 5, 0, 6).others_cores == 0


def test_the_table_says_met_and_not_met_and_what_speaks_against_it() -> None:
    figures = [
        Figure("first", "1.0 s", "≤ 2.0 s", True, "fine"),
        Figure("second one", "3.0 s", "≤ 2.0 s", False),
        Figure("third", "4.0 s"),
    ]
    assert render(figures, ["load average 3.00"]).splitlines() == [
        "machine is not quiet: load average 3.00",
        "figure      value  target",
        "first       1.0 s  ≤ 2.0 s  met      fine",
        "second one  3.0 s  ≤ 2.0 s  not met",
        "third       4.0 s",
    ]
