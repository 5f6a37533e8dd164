"""[P-9.3] Rollouts as they travel over HTTP."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from trimtab_protocol.base import parse_wire
from trimtab_protocol.messages import encode
from trimtab_protocol.rollout import Gate, OnFailure, RolloutSpec, StageSpec


def test_a_rollout_begins_with_one_device_and_ends_with_all_of_them() -> None:
    spec = RolloutSpec(name="digits", version=2)
    assert spec.stages == (StageSpec(count=1), StageSpec(ratio=1.0))
    assert spec.on_failure is OnFailure.ROLL_BACK


def test_a_stage_is_a_count_or_a_ratio_and_never_both_or_neither() -> None:
    with pytest.raises(ValidationError, match="either a count or a ratio"):
        StageSpec()
    with pytest.raises(ValidationError, match="either a count or a ratio"):
        StageSpec(count=1, ratio=0.5)


@pytest.mark.parametrize("stage", [{"count": 0}, {"ratio": 0.0}, {"ratio": 1.1}], ids=str)
def test_a_stage_has_at_least_one_device_and_at_most_all(stage: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        StageSpec.model_validate(stage)


@pytest.mark.parametrize("count", [0, 21])
def test_a_rollout_has_between_one_and_twenty_stages(count: int) -> None:
    with pytest.raises(ValidationError, match="stages"):
        RolloutSpec(name="digits", version=2, stages=(StageSpec(count=1),) * count)


@pytest.mark.parametrize(
    "gate",
    [
        {"max_p90_ratio": 0},
        {"max_failed_ratio": -0.1},
        {"max_failed_ratio": 1.1},
        {"deadline_s": 0},
    ],
    ids=str,
)
def test_a_gate_that_could_not_judge_is_refused(gate: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Gate.model_validate(gate)


@pytest.mark.parametrize("ratio", [None, 0.9, 1.05, 2.0])
def test_a_gate_that_allows_any_ratio_still_does_after_its_travel(ratio: float | None) -> None:
    spec = RolloutSpec(name="digits", version=2, gate=Gate(max_p90_ratio=ratio))
    assert parse_wire(RolloutSpec, encode(spec), what="rollout").gate.max_p90_ratio == ratio


def test_the_json_schema_of_a_gate_shows_its_fields() -> None:
    """[P-9.1]"""
    properties = Gate.model_json_schema(mode="serialization")["properties"]
    assert set(properties) == {"max_p90_ratio", "max_failed_ratio", "deadline_s"}
