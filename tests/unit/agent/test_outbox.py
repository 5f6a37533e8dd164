"""Reports wait on disk until they are acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.factories import a_deployment_report, a_trial_report, an_event_report
from trimtab_agent.disk import Disk
from trimtab_agent.outbox import MAX_IN_FLIGHT, RESEND_AFTER_S, Outbox
from trimtab_protocol.errors import StorageError
from trimtab_protocol.messages import encode, parse_report


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path, Disk())


def ids(payloads: list[bytes]) -> list[str]:
    return [parse_report(payload).report_id for payload in payloads]


def test_reports_are_sent_in_the_order_in_which_they_were_put(outbox: Outbox) -> None:
    for name in ("c", "a", "b"):
        outbox.put(an_event_report(name))
    assert ids(outbox.due(0.0)) == ["c", "a", "b"]


def test_a_report_is_sent_again_only_after_its_time_and_until_it_is_acknowledged(
    outbox: Outbox, tmp_path: Path
) -> None:
    outbox.put(an_event_report("a"))
    assert ids(outbox.due(0.0)) == ["a"]
    assert outbox.due(RESEND_AFTER_S) == []
    assert ids(outbox.due(RESEND_AFTER_S + 0.1)) == ["a"]
    outbox.acknowledge(("a", "unknown"))
    assert outbox.due(1000.0) == []
    assert len(outbox) == 0
    assert list(tmp_path.iterdir()) == []


def test_after_a_reconnect_everything_is_sent_again(outbox: Outbox) -> None:
    outbox.put(an_event_report("a"))
    outbox.due(0.0)
    outbox.forget_sending()
    assert ids(outbox.due(0.1)) == ["a"]


def test_the_same_id_is_kept_once_as_it_was_first(outbox: Outbox, tmp_path: Path) -> None:
    outbox.put(an_event_report("a", event="first"))
    outbox.put(an_event_report("a", event="second"))
    assert len(list(tmp_path.iterdir())) == 1
    assert b"first" in outbox.due(0.0)[0]


def test_what_waits_survives_a_restart_in_order(outbox: Outbox, tmp_path: Path) -> None:
    for name in ("c", "a"):
        outbox.put(an_event_report(name))
    outbox.due(0.0)
    again = Outbox(tmp_path, Disk())
    again.put(an_event_report("b"))
    again.put(an_event_report("a"))
    assert ids(again.due(0.0)) == ["c", "a", "b"]


def test_only_so_many_are_in_flight_at_once(outbox: Outbox) -> None:
    for number in range(MAX_IN_FLIGHT + 5):
        outbox.put(an_event_report(f"e{number}"))
    assert len(outbox.due(0.0)) == MAX_IN_FLIGHT
    outbox.acknowledge(("e0", "e1"))
    assert ids(outbox.due(1.0)) == [f"e{MAX_IN_FLIGHT}", f"e{MAX_IN_FLIGHT + 1}"]


def test_when_it_is_full_the_oldest_trials_go_and_nothing_else(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, Disk(), max_reports=4)
    outbox.put(a_deployment_report(report_id="d0"))
    for name in ("t0", "t1", "t2"):
        outbox.put(a_trial_report(report_id=name))
    outbox.put(an_event_report("e0"))
    outbox.put(a_deployment_report(report_id="d1"))
    assert ids(outbox.due(0.0)) == ["d0", "t2", "e0", "d1"]
    assert outbox.dropped_count == 2
    assert len(list(tmp_path.iterdir())) == 4


def test_deployments_and_events_are_kept_beyond_the_bound(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, Disk(), max_reports=2)
    for number in range(5):
        outbox.put(a_deployment_report(report_id=f"d{number}"))
    assert len(outbox) == 5
    assert outbox.dropped_count == 0
    outbox.put(a_trial_report(report_id="t"))
    assert "t" not in ids(outbox.due(0.0))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("0000000001-a.json", b"not JSON"),
        ("0000000001-a.json", b'{"schema_version":"9.0","kind":"event"}'),
        ("0junk.json", b"{}"),
        ("7.json", b"{}"),
    ],
)
def test_a_junk_file_is_removed_counted_and_harms_nothing(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "0000000002-good.json").write_bytes(encode(an_event_report("good")))
    outbox = Outbox(tmp_path, Disk())
    assert ids(outbox.due(0.0)) == ["good"]
    assert outbox.dropped_count == 1
    assert not (tmp_path / name).exists()


def test_what_a_power_cut_left_half_written_is_cleared_away(outbox: Outbox, tmp_path: Path) -> None:
    outbox.put(an_event_report("a"))
    (tmp_path / ".0000000002-b.json.new").write_bytes(b'{"half')
    again = Outbox(tmp_path, Disk())
    assert ids(again.due(0.0)) == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["0000000001-a.json"]


def test_a_report_whose_file_vanished_does_not_hold_up_the_others(
    outbox: Outbox, tmp_path: Path
) -> None:
    outbox.put(an_event_report("a"))
    outbox.put(an_event_report("b"))
    next(tmp_path.glob("*-a.json")).unlink()
    assert ids(outbox.due(0.0)) == ["b"]
    assert len(outbox) == 1
    assert outbox.dropped_count == 1


def test_a_report_that_the_disk_refuses_is_not_in_the_outbox(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("a file where a folder should be")
    outbox = Outbox(tmp_path / "outbox", Disk())
    with pytest.raises(StorageError):
        outbox.put(an_event_report("a"))
    assert len(outbox) == 0
    assert outbox.due(0.0) == []
