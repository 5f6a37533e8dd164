"""How many channels remain: pure figures, and the grids of device classes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_compressor.grids import DEFAULT_GRID, Precision, find_grid
from trimtab_compressor.passes.prune_plan import ChannelGroup, choose_channels, plan_widths


def a_group(count: int, **changes: object) -> ChannelGroup:
    fields: dict[str, object] = {
        "name": "conv",
        "importance": tuple(float(row) for row in range(count)),
        "initial": count,
    }
    return ChannelGroup(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "ratio", "grid", "remaining"),
    [
        (32, 0.5, 8, 16),
        (32, 0.3, 8, 24),  # 22.4 is nearer to 24 than to 16
        (24, 0.5, 8, 16),  # 12 stands between 8 and 16: the larger
        (16, 0.75, 8, 8),  # one of the grid always remains
        (6, 0.5, 8, 6),  # narrower than the grid: left alone
        (20, 0.5, 1, 10),
    ],
)
def test_each_layer_keeps_the_multiple_of_the_grid_nearest_to_its_share(
    count: int, ratio: float, grid: int, remaining: int
) -> None:
    assert plan_widths([a_group(count)], ratio, grid, is_global=False) == (remaining,)


def test_global_pruning_takes_more_where_channels_matter_less() -> None:
    weak = a_group(16, importance=tuple([0.1] * 12 + [5.0] * 4))
    strong = a_group(16, importance=tuple([1.0] * 16))
    assert plan_widths([weak, strong], 0.375, 4, is_global=True) == (4, 16)


def test_a_ratio_of_its_own_goes_before_the_common_one() -> None:
    groups = [a_group(16, own_ratio=0.0), a_group(16, own_ratio=0.75), a_group(16)]
    for is_global in (False, True):
        assert plan_widths(groups, 0.5, 4, is_global=is_global) == (16, 4, 8)


def test_a_ratio_of_zero_leaves_a_width_off_the_grid_alone() -> None:
    assert plan_widths([a_group(18, own_ratio=0.0)], 0.5, 8, is_global=False) == (18,)


def test_later_steps_count_from_the_first_width() -> None:
    half_gone = a_group(16, initial=32)
    assert plan_widths([half_gone], 0.75, 4, is_global=False) == (8,)
    assert plan_widths([half_gone], 0.25, 4, is_global=False) == (16,)


def test_parts_stay_equal() -> None:
    importance = [9.0, 1.0, 2.0, 8.0, 1.0, 2.0, 9.0, 1.0]
    assert plan_widths([a_group(8, parts=2)], 0.5, 1, is_global=False) == (4,)
    assert choose_channels(importance, 4, parts=2) == [1, 3, 5, 7]
    assert choose_channels(importance, 6, parts=1) == [1, 4]


@given(
    counts=st.lists(st.integers(1, 70), min_size=1, max_size=5),
    ratio=st.floats(0, 0.99),
    grid=st.integers(1, 16),
    is_global=st.booleans(),
)
def test_something_remains_never_more_than_there_was_and_what_was_cut_is_on_the_grid(
    *, counts: list[int], ratio: float, grid: int, is_global: bool
) -> None:
    groups = [a_group(count) for count in counts]
    for count, width in zip(
        counts, plan_widths(groups, ratio, grid, is_global=is_global), strict=True
    ):
        assert 1 <= width <= count
        assert width == count or width % grid == 0


@pytest.mark.parametrize(
    ("device_class", "precision", "grid"),
    [
        ("raspberry-pi-4-model-b-rev-1-4-t4", "fp32", 8),
        ("raspberry-pi-4-model-b-rev-1-4-t4", "int8", 8),
        ("raspberry-pi-5-model-b-rev-1-0-t4", "int8", 16),
        ("nvidia-jetson-orin-nano-t6", "int8", 16),
        ("jetson-gpu", "int8", 32),
        ("jetson-gpu", "fp16", 8),
        ("x86-avx2", "fp32", 8),
    ],
)
def test_a_known_device_class_has_a_grid(
    device_class: str, precision: Precision, grid: int
) -> None:
    found, source = find_grid(device_class, precision)
    assert found == grid
    assert source.endswith(precision)


def test_an_unknown_class_gets_the_default_and_is_told_so() -> None:
    assert find_grid(None, "int8") == (DEFAULT_GRID, "default")
    assert find_grid("toaster-t1", "int8") == (
        DEFAULT_GRID,
        "default: class toaster-t1 says nothing about its CPU",
    )
