"""Peak memory from /proc, on made files and on this very process."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab_agent.measure.process_memory import (
    Footprint,
    read_footprint,
    read_involuntary_switches,
    read_status_bytes,
    reset_peak,
)

STATUS = """\
Name:	python3
VmPeak:	  100 kB
VmHWM:	    5120 kB
VmRSS:	    4096 kB
voluntary_ctxt_switches:	7
nonvoluntary_ctxt_switches:	42
"""


def write_status(root: Path, text: str, pid: str = "self") -> Path:
    (root / pid).mkdir(parents=True)
    (root / pid / "status").write_text(text)
    return root


def test_a_field_is_read_in_bytes(tmp_path: Path) -> None:
    write_status(tmp_path, STATUS)
    assert read_status_bytes("VmHWM", tmp_path) == 5120 * 1024
    assert read_status_bytes("VmRSS", tmp_path) == 4096 * 1024
    assert read_involuntary_switches(tmp_path) == 42


def test_another_process_is_read_by_its_number(tmp_path: Path) -> None:
    write_status(tmp_path, STATUS.replace("5120", "77"), "123")
    assert read_status_bytes("VmHWM", tmp_path, "123") == 77 * 1024


@pytest.mark.parametrize(
    "text", ["", "VmHWM:\n", "VmHWM: 5120 MB\n", "VmHWM: 5120\n", "VmHWMX: 1 kB\n"]
)
def test_what_is_not_there_or_not_in_kilobytes_is_none_and_never_a_guess(
    tmp_path: Path, text: str
) -> None:
    write_status(tmp_path, text)
    assert read_status_bytes("VmHWM", tmp_path) is None
    assert read_involuntary_switches(tmp_path) == 0


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    assert read_status_bytes("VmHWM", tmp_path / "none") is None
    assert read_involuntary_switches(tmp_path / "none") == 0
    assert not reset_peak(tmp_path / "none")


def test_resetting_writes_what_the_kernel_wants(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    assert reset_peak(tmp_path)
    assert (tmp_path / "self" / "clear_refs").read_text() == "5"


def test_what_others_share_is_divided_in_pss_and_not_in_uss(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "smaps_rollup").write_text(
        "5563ade01000-7ffc55b34000 ---p 00000000 00:00 0                          [rollup]\n"
        "Rss:                9084 kB\nPss:                2500 kB\nPss_Dirty:          1000 kB\n"
        "Shared_Clean:       7000 kB\nPrivate_Clean:       300 kB\nPrivate_Dirty:      1700 kB\n"
    )
    assert read_footprint(tmp_path) == Footprint(9084 * 1024, 2500 * 1024, 2000 * 1024)
    assert read_footprint(tmp_path / "none") is None
    (tmp_path / "self" / "smaps_rollup").write_text("Rss:   9084 kB\n")
    assert read_footprint(tmp_path) is None


def test_this_process_holds_what_it_allocated() -> None:
    before = read_status_bytes("VmHWM")
    block = bytearray(64 * 1024 * 1024)
    block[::4096] = b"x" * len(block[::4096])
    after = read_status_bytes("VmHWM")
    assert before is not None
    assert after is not None
    rss = read_status_bytes("VmRSS", Path("/proc"))
    assert rss is not None
    assert after + 1_000_000 >= rss  # the kernel counts in batches of pages
    assert after - before > 0 or after > 64 * 1024 * 1024
