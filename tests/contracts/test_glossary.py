"""Each place that the glossary names is there."""

from __future__ import annotations

import re
from functools import reduce
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

GLOSSARY = Path(__file__).resolve().parents[2] / "docs" / "glossary.md"
ROW = re.compile(r"^\| ([a-z ]+) \| .+ \| (.+) \|$", re.MULTILINE)
PLACE = re.compile(r"`(trimtab_[a-z_]+)\.([A-Za-z_]+)((?:\.[A-Za-z_]+)*)`")


def _rows() -> list[tuple[str, str]]:
    rows = ROW.findall(GLOSSARY.read_text("utf-8"))
    return [(word, places) for word, places in rows if word != "word"]


def test_each_word_stands_once() -> None:
    words = [word for word, _ in _rows()]
    assert len(words) > 40, "the glossary has lost its words, or this test its pattern"
    assert len(words) == len(set(words))


@pytest.mark.parametrize(("word", "places"), _rows())
def test_a_word_lives_where_the_glossary_says(word: str, places: str) -> None:
    for package, module, names in PLACE.findall(places):
        assert find_spec(f"{package}.{module}") is not None
        if package == "trimtab_protocol":
            start: object = import_module(f"{package}.{module}")
            reduce(_member, names.split(".")[1:], start)


def _member(parent: object, name: str) -> object:
    """An attribute or a field of a model."""
    fields = getattr(parent, "model_fields", {})
    return fields[name] if name in fields else getattr(parent, name)
