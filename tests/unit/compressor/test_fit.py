"""The loop, with a control plane that answers from a table and real little ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.compressor_rig import FakeControlPlane, FakeMaker, a_task
from support.factories import OWNER_KEY
from trimtab_compressor.build import Built
from trimtab_compressor.commands.fit import check_result
from trimtab_compressor.fit import Fit, FitPlan
from trimtab_compressor.fit_report import FitReport
from trimtab_compressor.publish import ArtifactPlan
from trimtab_compressor.recipes import Choice, list_choices
from trimtab_compressor.show import print_fit
from trimtab_compressor.task import Samples, Task
from trimtab_protocol.api import Artifact
from trimtab_protocol.budget import Budget, Metric, Outcome
from trimtab_protocol.errors import ErrorCode, RejectedError, TransientError
from trimtab_protocol.manifest import ModelFormat
from trimtab_protocol.reading import absent, known
from trimtab_protocol.rollout import RolloutState

SLOW, FAST, STRADDLING = known(10.0, 9.9, 10.1), known(1.0, 0.9, 1.1), known(5.0, 4.0, 6.0)
RECIPES = ["fp32", "dynamic_w8", "static_w8a8_asym"]


def flat_task() -> Task:
    """The dense test model takes rows of 64 numbers."""
    inputs = np.random.default_rng(0).normal(size=(80, 64)).astype(np.float32)
    samples = Samples(inputs=inputs, labels=np.zeros(80, np.int64))
    return a_task(input_shape=(64,), train=samples, test=samples, calibration=inputs[:10])


def fit(
    plane: FakeControlPlane,
    maker: FakeMaker,
    *,
    classes: tuple[str, ...] = ("pi4",),
    limits: dict[Metric, float] | None = None,
    recipes: list[str] | None = None,
    **changes: bool,
) -> FitReport:
    budgets = {name: Budget(limits=limits or {Metric.P90_MS: 5.0}) for name in classes}
    plan = FitPlan(
        choices=list_choices(recipes or RECIPES, (ModelFormat.ONNX,)),
        budgets=budgets,
        artifact=ArtifactPlan(name="bars", private_key=OWNER_KEY, budgets=budgets),
        **changes,  # type: ignore[arg-type]
    )
    return Fit(plan, flat_task(), maker, plane, lambda _: None).run()


def test_the_first_that_keeps_the_budget_is_chosen_and_nothing_after_it_is_measured(
    tmp_path: Path,
) -> None:
    plane = FakeControlPlane({"fp32": SLOW, "dynamic_w8": FAST})
    report = fit(plane, FakeMaker(tmp_path))
    assert report.chosen is not None
    assert report.chosen.recipe == "dynamic_w8"
    assert plane.trials == [("fp32", "pi4"), ("dynamic_w8", "pi4")]
    assert report.base.classes[0].measurement is not None
    check_result(report)


def test_all_classes_must_pass_and_a_failure_on_one_spares_the_next(tmp_path: Path) -> None:
    plane = FakeControlPlane(
        {"fp32": SLOW, ("dynamic_w8", "a"): SLOW, ("static_w8a8_asym", "a"): FAST,
         ("static_w8a8_asym", "b"): FAST}
    )  # fmt: skip
    report = fit(plane, FakeMaker(tmp_path), classes=("a", "b"))
    assert report.chosen is not None
    assert report.chosen.recipe == "static_w8a8_asym"
    assert plane.trials[:3] == [("fp32", "a"), ("fp32", "b"), ("dynamic_w8", "a")]
    assert plane.trials[3:] == [("static_w8a8_asym", "a"), ("static_w8a8_asym", "b")]


def test_what_the_host_rules_out_is_neither_pushed_nor_measured(tmp_path: Path) -> None:
    plane = FakeControlPlane({"fp32": SLOW, "static_w8a8_asym": FAST})
    maker = FakeMaker(tmp_path, exact={"dynamic_w8": 0.5})
    report = fit(plane, maker, limits={Metric.P90_MS: 5.0, Metric.ACCURACY_DROP: 0.01})
    ruled_out = report.candidates[1]
    assert ruled_out.recipe == "dynamic_w8"
    assert ruled_out.artifact is None
    assert "on the host: accuracy_drop" in ruled_out.reason
    assert [recipe for recipe, _ in plane.trials] == ["fp32", "static_w8a8_asym"]


def test_measuring_all_goes_on_after_the_choice_and_past_the_host(tmp_path: Path) -> None:
    plane = FakeControlPlane({"fp32": FAST, "dynamic_w8": FAST, "static_w8a8_asym": SLOW})
    maker = FakeMaker(tmp_path, exact={"dynamic_w8": 0.5})
    limits = {Metric.P90_MS: 5.0, Metric.ACCURACY_DROP: 0.01}
    report = fit(plane, maker, limits=limits, measures_all=True)
    assert report.chosen == report.base
    assert [row.outcome for row in report.candidates] == [Outcome.PASS, Outcome.FAIL, Outcome.FAIL]
    assert all(row.classes[0].measurement for row in report.candidates)


def test_doubt_is_measured_again_until_it_is_settled(tmp_path: Path) -> None:
    plane = FakeControlPlane({"fp32": [STRADDLING, FAST]})
    report = fit(plane, FakeMaker(tmp_path))
    assert report.chosen == report.base
    assert report.base.classes[0].trials == 2
    assert report.base.classes[0].trial_ids == ("trial-1", "trial-2")


def test_doubt_that_stays_after_three_trials_is_not_kept_and_says_so(tmp_path: Path) -> None:
    plane = FakeControlPlane({"fp32": STRADDLING, "dynamic_w8": FAST})
    report = fit(plane, FakeMaker(tmp_path))
    assert report.base.outcome is Outcome.INCONCLUSIVE
    assert "still inconclusive after 3 trials" in report.base.reason
    assert report.chosen is not None
    assert report.chosen.recipe == "dynamic_w8"


def test_an_absent_figure_is_not_measured_again(tmp_path: Path) -> None:
    plane = FakeControlPlane({"fp32": absent("too few runs")})
    report = fit(plane, FakeMaker(tmp_path), recipes=["fp32"])
    assert len(plane.trials) == 1
    assert report.chosen is None


def test_a_trial_that_fails_and_a_build_that_fails_are_observations(tmp_path: Path) -> None:
    plane = FakeControlPlane({"fp32": ErrorCode.MODEL_CRASH, "static_w8a8_asym": FAST})
    maker = FakeMaker(tmp_path)
    maker.broken = {"dynamic_w8"}
    report = fit(plane, maker)
    crashed, unbuilt, kept = report.candidates
    assert crashed.classes[0].error_code is ErrorCode.MODEL_CRASH
    assert "[model.crash] the child was killed" in crashed.reason
    assert unbuilt.reason == "[model.unreadable] nothing was quantized"
    assert report.chosen == kept


def test_a_file_that_does_not_run_is_an_observation_too(tmp_path: Path) -> None:
    class JunkMaker(FakeMaker):
        def build(self, choice: Choice) -> Built:
            built = super().build(choice)
            if choice.recipe == "dynamic_w8":
                built.path.write_bytes(b"junk")
            return built

    plane = FakeControlPlane({"fp32": SLOW, "static_w8a8_asym": FAST})
    report = fit(plane, JunkMaker(tmp_path))
    assert report.candidates[1].reason.startswith("[model.unreadable]")
    assert report.chosen == report.candidates[2]


def test_a_control_plane_that_is_away_is_noticed_before_anything_is_built(tmp_path: Path) -> None:
    class Away(FakeControlPlane):
        def list_artifacts(self, name: str) -> list[Artifact]:
            raise TransientError(f"no route to {name}")

    maker = FakeMaker(tmp_path)
    with pytest.raises(TransientError):
        fit(Away({}), maker)
    assert maker.built == []


def test_when_nothing_keeps_the_budget_the_nearest_is_named(tmp_path: Path) -> None:
    plane = FakeControlPlane(
        {"fp32": SLOW, "dynamic_w8": known(6.0, 5.9, 6.1), "static_w8a8_asym": SLOW}
    )
    report = fit(plane, FakeMaker(tmp_path))
    assert report.chosen is None
    with pytest.raises(RejectedError, match=r"dynamic_w8 \(onnx\), misses by 20.0%") as caught:
        check_result(report)
    assert caught.value.code is ErrorCode.REJECTED_BUDGET


def test_a_second_fit_reuses_the_versions_and_another_budget_makes_new_ones(tmp_path: Path) -> None:
    plane = FakeControlPlane({"fp32": SLOW, "dynamic_w8": FAST})
    first = fit(plane, FakeMaker(tmp_path))
    again = fit(plane, FakeMaker(tmp_path))
    assert [row.ref.version for row in plane.artifacts] == [1, 2]
    assert first.chosen is not None
    assert again.chosen is not None
    assert again.chosen.artifact == first.chosen.artifact
    fit(plane, FakeMaker(tmp_path), limits={Metric.P90_MS: 4.0})
    assert [row.ref.version for row in plane.artifacts] == [1, 2, 3, 4]


def test_the_base_is_measured_although_it_is_not_among_the_choices(tmp_path: Path) -> None:
    plane = FakeControlPlane({"fp32": FAST, "dynamic_w8": FAST})
    report = fit(plane, FakeMaker(tmp_path), recipes=["dynamic_w8"])
    assert report.base.recipe == "fp32"
    assert [row.recipe for row in report.candidates] == ["dynamic_w8"]
    assert report.chosen is not None
    assert report.chosen.recipe == "dynamic_w8"


def test_the_chosen_one_is_rolled_out_to_the_classes_of_the_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plane = FakeControlPlane({"fp32": SLOW, "dynamic_w8": FAST})
    report = fit(plane, FakeMaker(tmp_path), rolls_out=True)
    assert plane.rollouts[0].device_classes == ("pi4",)
    assert plane.rollouts[0].version == 2
    assert report.rollout_state is RolloutState.COMMITTED
    check_result(report)
    print_fit(report)
    shown = capsys.readouterr().out
    assert "chosen: dynamic_w8 (onnx) bars@2" in shown
    assert "rollout: rollout-1 committed" in shown


def test_a_rollout_that_the_devices_refuse_is_an_error(tmp_path: Path) -> None:
    plane = FakeControlPlane({"fp32": FAST})
    plane.rollout_state = RolloutState.ROLLED_BACK
    with pytest.raises(RejectedError, match="ended as rolled_back"):
        check_result(fit(plane, FakeMaker(tmp_path), rolls_out=True))


def test_a_report_survives_its_json(tmp_path: Path) -> None:
    report = fit(FakeControlPlane({"fp32": FAST}), FakeMaker(tmp_path))
    assert FitReport.model_validate_json(report.model_dump_json()) == report
