"""Budgets on the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_compressor.budgets import parse_budgets
from trimtab_protocol.budget import Metric
from trimtab_protocol.errors import ConfigError


def test_a_rule_without_a_class_is_for_all_and_a_class_wins_over_it() -> None:
    found = parse_budgets(["p90_ms=20", "orin:p90_ms=8"], ("pi4", "orin"), max_drop=0.005)
    assert found["pi4"].limits == {Metric.P90_MS: 20.0, Metric.ACCURACY_DROP: 0.005}
    assert found["orin"].limits == {Metric.P90_MS: 8.0, Metric.ACCURACY_DROP: 0.005}


def test_the_order_of_a_class_rule_and_a_general_rule_does_not_matter() -> None:
    rules = ["orin:p90_ms=8", "p90_ms=20"]
    assert parse_budgets(rules, ("orin",)) == parse_budgets(rules[::-1], ("orin",))


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("300KB", 3e5),
        ("1.5MB", 1.5e6),
        ("2KiB", 2048.0),
        ("1MiB", 1048576.0),
        ("7", 7.0),
        (".5MB", 5e5),
    ],
)
def test_sizes_may_have_a_unit(text: str, limit: float) -> None:
    found = parse_budgets([f"size_bytes={text}"], ("c",))
    assert found["c"].limits[Metric.SIZE_BYTES] == limit


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_any_plain_number_is_read_as_python_writes_it(limit: float) -> None:
    found = parse_budgets([f"p99_ms={limit!r}"], ("c",))
    assert found["c"].limits[Metric.P99_MS] == limit


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("p90_ms", "cannot be read"),
        ("p90_ms=", "cannot be read"),
        ("p42_ms=3", "unknown metric 'p42_ms'"),
        ("p90_ms=fast", "not a limit"),
        ("p90_ms=20KB", "not a limit"),
        ("p90_ms=-1", "not a limit"),
        ("p90_ms=nan", "not a limit"),
        ("size_bytes=3GB", "KB or MB"),
        ("pi5:p90_ms=3", "add --class pi5"),
        ("p90_ms=0", "never be kept"),
    ],
)
def test_a_rule_that_cannot_hold_is_refused_with_the_remedy(rule: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_budgets([rule], ("pi4",))
    assert said in caught.value.message
