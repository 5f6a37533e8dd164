"""The ladder's decisions, on a bench that answers from a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from trimtab_compressor.rescue.climb import Climb, climb
from trimtab_compressor.rescue.decide import Goal, Measured, Observation, Stop, Try, decide_next
from trimtab_compressor.rescue.report import (
    enough_rung,
    explain_failure,
    list_passes,
    list_settings,
    report_findings,
)
from trimtab_compressor.rescue.rungs import RUNGS, Setting, naive_setting
from trimtab_compressor.specs.quantization import QuantizeVerified
from trimtab_compressor.specs.rescue import CorrectBias, Equalize, RoundWeights
from trimtab_protocol.errors import ConfigError, ModelError

GOAL = Goal(reference=0.99, max_drop_points=0.5)
LAYERS = ("a", "b", "c", "d")


class TableBench:
    """Gives each setting the accuracy that a function says; an error is raised."""

    def __init__(self, accuracy: Callable[[Setting], float | Exception]) -> None:
        self._accuracy = accuracy
        self.ranking: tuple[str, ...] | Exception = LAYERS

    def measure(self, setting: Setting) -> Measured:
        found = self._accuracy(setting)
        if isinstance(found, Exception):
            raise found
        return Measured(found, found, 1.0, 1000, 1.0)

    def rank(self, setting: Setting) -> tuple[str, ...]:
        assert setting.static.excluded == ()
        if isinstance(self.ranking, Exception):
            raise self.ranking
        return self.ranking


def climb_on(bench: TableBench, goal: Goal = GOAL) -> Climb:
    return climb(bench, goal, naive_setting(), lambda _: None)


def rungs_of(found: Climb) -> list[str]:
    return list(dict.fromkeys(row.rung for row in found.seen))


def test_the_first_setting_that_is_good_enough_ends_the_climb() -> None:
    found = climb_on(TableBench(lambda _: 0.985))
    assert rungs_of(found) == ["naive"]
    assert enough_rung(found) == "naive"


def test_a_drop_of_exactly_what_is_allowed_is_allowed_and_a_gain_too() -> None:
    assert Goal(0.9, 1.0).is_met(0.89)
    assert not Goal(0.9, 1.0).is_met(0.8899)
    assert Goal(0.9, 0.0).is_met(0.95)


def test_what_helps_is_kept_and_what_hurts_is_dropped() -> None:
    def accuracy(setting: Setting) -> float:
        good = 0.90 + 0.02 * setting.static.is_per_channel + 0.03 * (setting.repair != "none")
        return good - 0.05 * setting.is_equalized - 0.01 * (setting.static.calibrator != "minmax")

    found = climb_on(TableBench(accuracy))
    rounded = next(row.setting for row in found.seen if row.rung == "round_weights")
    assert rounded.static.is_per_channel
    assert rounded.static.calibrator == "minmax"
    assert not rounded.is_equalized
    mixed = next(row.setting for row in found.seen if row.rung == "mixed")
    assert mixed.repair == "correct_bias", "of equals the one that does less"


def test_the_best_calibrator_of_all_is_kept() -> None:
    table = {("percentile", 99.9): 0.95, ("entropy", 100.0): 0.97}
    found = climb_on(
        TableBench(lambda row: table.get((row.static.calibrator, row.static.percentile), 0.9))
    )
    assert len([row for row in found.seen if row.rung == "calibrator"]) == 4
    channel = next(row.setting for row in found.seen if row.rung == "per_channel")
    assert channel.static.calibrator == "entropy"


def test_layers_become_float_one_by_one_until_it_is_enough() -> None:
    found = climb_on(TableBench(lambda row: 0.95 + 0.02 * len(row.static.excluded)))
    tried = [row.setting.static.excluded for row in found.seen if row.rung == "mixed"]
    assert tried == [("a",), ("a", "b")]
    assert enough_rung(found) == "mixed"


def test_no_more_than_half_of_the_layers_become_float() -> None:
    found = climb_on(TableBench(lambda _: 0.5))
    assert max(len(row.setting.static.excluded) for row in found.seen) == len(LAYERS) // 2


def test_the_whole_ladder_is_tried_in_order_before_it_fails() -> None:
    found = climb_on(TableBench(lambda _: 0.5))
    assert rungs_of(found) == [rung.name for rung in RUNGS]
    assert not found.stop.is_enough
    assert "the best, naive, loses 49.00" in explain_failure(found)


def test_training_starts_from_a_plain_quantizer_of_the_same_scheme() -> None:
    found = climb_on(
        TableBench(lambda row: 0.99 if row.is_trained else 0.5 + 0.1 * row.is_equalized)
    )
    trained = found.seen[-1].setting
    assert enough_rung(found) == "quantize_aware"
    assert [spec.pass_name for spec in trained.network_passes()] == ["train", "quantize_aware"]
    assert [spec.pass_name for spec in trained.file_passes()] == ["quantize_static"]


def test_a_rung_that_cannot_be_done_is_reported_with_its_reason_and_costs_nothing() -> None:
    def accuracy(setting: Setting) -> float | Exception:
        if setting.is_equalized:
            return ModelError("no two layers follow each other")
        return ConfigError("a file cannot be trained") if setting.is_trained else 0.9

    bench = TableBench(accuracy)
    bench.ranking = ModelError("one layer only")
    found = climb_on(bench)
    reasons = {row.rung: row.reason for row in list_settings(found) if row.reason}
    assert reasons == {
        "equalize": "no two layers follow each other",
        "mixed": "one layer only",
        "quantize_aware": "a file cannot be trained",
    }


def test_a_model_that_cannot_be_quantized_at_all_says_why() -> None:
    found = climb_on(TableBench(lambda _: ModelError("nothing was quantized")))
    assert found.stop.best is None
    assert "nothing was quantized" in explain_failure(found)


def test_repairs_know_the_quantizer_that_follows_them() -> None:
    static = replace(naive_setting(is_range_reduced=True).static, excluded=("a",))
    setting = Setting(static, is_equalized=True, repair="round_weights")
    first, second, last = setting.file_passes()
    assert isinstance(first, Equalize)
    assert second == RoundWeights(is_per_channel=False, is_range_reduced=True, excluded=("a",))
    assert last == static
    corrected = replace(setting, repair="correct_bias").file_passes()[1]
    assert corrected == CorrectBias(is_per_channel=False, is_range_reduced=True, excluded=("a",))


def test_a_decision_depends_on_what_was_seen_alone() -> None:
    start = naive_setting()
    seen: list[Observation] = []
    for _ in range(3):
        action = decide_next(seen, GOAL, start)
        assert isinstance(action, Try)
        assert action == decide_next(list(seen), GOAL, start)
        seen.append(Observation(action.rung, action.setting, Measured(0.9, None, 1.0, 1, 1.0)))
    assert isinstance(decide_next(seen, Goal(0.9, 0.5), start), Stop)


def test_findings_name_the_rung_the_chain_and_each_rungs_best() -> None:
    def accuracy(setting: Setting) -> float:
        return 0.99 if setting.static.is_per_channel else 0.9

    found = climb_on(TableBench(accuracy))
    assert report_findings(found) == {
        "float_accuracy": 0.99,
        "rung": "per_channel",
        "passes": "quantize_static",
        "accuracy_naive": 0.9,
        "accuracy_calibrator": 0.9,
        "accuracy_per_channel": 0.99,
    }
    kept = [row.is_kept for row in list_settings(found)]
    assert kept == [True, *[False] * 4, True]


def test_a_chain_reads_as_what_differs_from_the_defaults() -> None:
    setting = Setting(naive_setting().static, is_equalized=True)
    assert list_passes(setting) == ("equalize", "quantize_static is_per_channel=False")


@pytest.mark.parametrize("drop", [-0.1, 100.5])
def test_a_drop_is_in_points(drop: float) -> None:
    with pytest.raises(ConfigError, match="max_drop"):
        QuantizeVerified(max_drop=drop)
