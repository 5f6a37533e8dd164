from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from trimtab_deploy.engine.cohort import assign_stages, order_devices
from trimtab_protocol.rollout import StageSpec

NAMES = st.sets(st.from_regex(r"[a-z0-9][a-z0-9-]{0,9}", fullmatch=True), max_size=60)
STAGE = st.one_of(
    st.integers(1, 80).map(lambda count: StageSpec(count=count)),
    st.floats(0.001, 1.0).map(lambda ratio: StageSpec(ratio=ratio)),
)
STAGES = st.lists(STAGE, min_size=1, max_size=6)


@given(NAMES, STAGES)
def test_nobody_is_in_two_stages_and_stages_never_go_back(
    names: set[str], stages: list[StageSpec]
) -> None:
    assigned = assign_stages("r-1", names, stages)
    devices = [device for device, _ in assigned]
    assert len(devices) == len(set(devices))
    assert set(devices) <= names
    order = [stage for _, stage in assigned]
    assert order == sorted(order)
    assert devices == order_devices("r-1", names)[: len(devices)]


@given(NAMES, STAGES)
def test_stages_are_cumulative_and_the_last_of_ratio_one_has_everybody(
    names: set[str], stages: list[StageSpec]
) -> None:
    everybody = [*stages, StageSpec(ratio=1.0)]
    assigned = assign_stages("r-1", names, everybody)
    assert len(assigned) == len(names)
    ended = 0
    for stage, spec in enumerate(stages):
        within = sum(found <= stage for _, found in assigned)
        wanted = (
            min(spec.count, len(names)) if spec.count else math.ceil((spec.ratio or 0) * len(names))
        )
        ended = max(ended, min(wanted, len(names)))
        assert within == ended


@given(NAMES.filter(bool), STAGES)
def test_a_first_stage_of_count_one_is_exactly_one_device(
    names: set[str], stages: list[StageSpec]
) -> None:
    assigned = assign_stages("r-1", names, [StageSpec(count=1), *stages])
    assert sum(stage == 0 for _, stage in assigned) == 1


@given(NAMES, STAGES, st.randoms())
def test_the_order_does_not_depend_on_how_devices_are_listed(
    names: set[str], stages: list[StageSpec], random: object
) -> None:
    listed = sorted(names)
    random.shuffle(listed)  # type: ignore[attr-defined]
    assert assign_stages("r-1", listed, stages) == assign_stages("r-1", names, stages)


def test_another_rollout_begins_with_another_device() -> None:
    names = [f"pi-{number}" for number in range(20)]
    firsts = {order_devices(f"r-{number}", names)[0] for number in range(40)}
    assert len(firsts) > 8


def test_any_ratio_has_at_least_one_device() -> None:
    assert len(assign_stages("r", ["a", "b", "c"], [StageSpec(ratio=0.001)])) == 1
