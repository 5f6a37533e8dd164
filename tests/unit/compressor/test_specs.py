"""Specs from plain values: what a recipe file may say, and what it is told when it is wrong."""

from __future__ import annotations

import pytest

from trimtab_compressor.specs.base import FileSpec, Need, NetworkSpec
from trimtab_compressor.specs.distillation import Distill
from trimtab_compressor.specs.pruning import PruneChannels
from trimtab_compressor.specs.table import SPECS, read_spec
from trimtab_protocol.errors import ConfigError


def test_every_spec_is_a_network_or_a_file_spec_under_its_own_name() -> None:
    for name, spec in SPECS.items():
        assert spec.pass_name == name
        assert issubclass(spec, NetworkSpec | FileSpec)
        assert not issubclass(spec, NetworkSpec) or Need.NETWORK in spec.needs


def test_plain_values_become_a_spec_and_a_whole_number_may_stand_for_a_float() -> None:
    assert read_spec("prune_channels", {"ratio": 0.5, "round_to": 16}) == PruneChannels(
        ratio=0.5, round_to=16
    )
    assert read_spec("distill", {"temperature": 2}) == Distill(temperature=2)
    assert read_spec("distill", {}) == Distill()


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("prune_chanels", {}, "did you mean prune_channels"),
        ("prune_channels", {"ration": 0.5}, "unknown parameter 'ration'; did you mean 'ratio'"),
        ("prune_channels", {"zzz": 1}, "it takes max_drop, .*ratio, layer_ratios"),
        ("train", {"zzz": 1}, "the pass takes none"),
        ("prune_channels", {}, "parameter 'ratio' is missing"),
        ("prune_channels", {"ratio": "half"}, "ratio is 'half'; it must be a number"),
        ("prune_channels", {"ratio": True}, "ratio is True; it must be a number"),
        ("prune_channels", {"ratio": 0.5, "round_to": 1.5}, "round_to is 1.5; .* a whole number"),
        ("distill", {"width": "wide"}, "it must be a number or left out"),
        ("prune_channels", {"ratio": 2.0}, "ratio is 2.0; it must lie between 0 and 1"),
    ],
)
def test_what_is_wrong_is_named_with_the_remedy(
    name: str, given: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read_spec(name, given)
