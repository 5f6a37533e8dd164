"""The contract in words and the contract in code cite the same numbers."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "protocol.md"
STATED = re.compile(r"^- `\[P-(\d+)\.(\d+)\]` ", re.MULTILINE)
CITED = re.compile(r"\bP-\d+\.\d+\b")
SEARCHED = ("protocol", "agent", "compressor", "deploy", "systemd", "tests", "examples", "docs")
SUFFIXES = {".py", ".md", ".service", ".toml", ".html", ".js", ".sh", ".yaml", ".yml"}


def _stated(document: str) -> list[tuple[int, int]]:
    return [(int(group), int(row)) for group, row in STATED.findall(document)]


def _cited() -> dict[str, list[str]]:
    """Where each number is cited: number -> files."""
    places: dict[str, list[str]] = {}
    for folder in SEARCHED:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                for number in set(CITED.findall(path.read_text("utf-8", "replace"))):
                    places.setdefault(number, []).append(str(path.relative_to(ROOT)))
    return places


def test_each_requirement_has_its_own_number() -> None:
    counted = Counter(_stated(DOCUMENT.read_text("utf-8")))
    assert len(counted) > 50, "the document has lost its requirements, or this test its pattern"
    assert [number for number, times in counted.items() if times > 1] == []


def test_requirements_are_numbered_in_order_within_their_group() -> None:
    stated = _stated(DOCUMENT.read_text("utf-8"))
    assert stated == sorted(stated)
    for group in {group for group, _ in stated}:
        rows = [row for other, row in stated if other == group]
        assert rows == list(range(1, len(rows) + 1)), f"group {group} has a gap"


def test_every_number_that_is_cited_anywhere_is_a_requirement() -> None:
    stated = {f"P-{group}.{row}" for group, row in _stated(DOCUMENT.read_text("utf-8"))}
    unknown = {number: files for number, files in _cited().items() if number not in stated}
    assert unknown == {}


@pytest.mark.parametrize("group", range(1, 10))
def test_every_group_is_cited_by_a_test(group: int) -> None:
    tests = {
        number
        for number, files in _cited().items()
        if any(file.startswith("tests/") for file in files)
    }
    assert any(number.startswith(f"P-{group}.") for number in tests)
