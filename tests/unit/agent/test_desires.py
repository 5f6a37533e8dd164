"""The newest desired state."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.factories import a_desired
from trimtab_agent.desires import Desires
from trimtab_agent.disk import Disk
from trimtab_protocol.errors import StorageError


def test_only_a_higher_sequence_is_news(tmp_path: Path) -> None:
    desires = Desires(tmp_path / "desired.json", Disk())
    assert desires.sequence == 0
    assert desires.is_news(a_desired(sequence=0))
    desires.remember(a_desired(sequence=5))
    assert [desires.is_news(a_desired(sequence=n)) for n in (4, 5, 6)] == [False, False, True]


def test_the_newest_is_still_known_after_a_restart(tmp_path: Path) -> None:
    desired = a_desired(sequence=5)
    Desires(tmp_path / "desired.json", Disk()).remember(desired)
    again = Desires(tmp_path / "desired.json", Disk())
    assert again.newest == desired
    assert again.sequence == 5
    assert not again.is_news(desired)


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema_version":"9.0","sequence":5}'])
def test_an_unreadable_one_counts_as_none_because_the_broker_has_the_newest(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "desired.json").write_bytes(content)
    desires = Desires(tmp_path / "desired.json", Disk())
    assert desires.newest is None
    assert desires.is_news(a_desired(sequence=1))


def test_one_that_the_disk_refuses_does_not_become_the_newest(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    desires = Desires(tmp_path / "state" / "desired.json", Disk())
    with pytest.raises(StorageError):
        desires.remember(a_desired(sequence=5))
    assert desires.is_news(a_desired(sequence=5))
