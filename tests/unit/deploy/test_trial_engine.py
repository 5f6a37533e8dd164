from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trimtab_deploy.engine.trial import (
    AskDevice,
    Candidate,
    Expire,
    OpenTrial,
    next_expiry,
    schedule,
)


def trial(
    name: str,
    device_class: str = "pi",
    *,
    wanted: str | None = None,
    asked: str | None = None,
    expires_at: float = 100,
) -> OpenTrial:
    return OpenTrial(name, device_class, wanted, asked, expires_at)


def test_an_idle_device_of_the_class_is_asked() -> None:
    online = [Candidate("orin-1", "orin"), Candidate("pi-1", "pi")]
    assert schedule([trial("t1")], online, 0) == [AskDevice("t1", "pi-1")]


def test_without_a_device_of_the_class_it_waits() -> None:
    assert schedule([trial("t1")], [Candidate("orin-1", "orin")], 0) == []


def test_the_named_device_and_no_other_is_asked() -> None:
    online = [Candidate("pi-1", "pi"), Candidate("pi-2", "pi")]
    assert schedule([trial("t1", wanted="pi-2")], online, 0) == [AskDevice("t1", "pi-2")]
    assert schedule([trial("t1", wanted="pi-3")], online, 0) == []


def test_a_device_has_at_most_one_open_ask() -> None:
    online = [Candidate("pi-1", "pi")]
    assert schedule([trial("t0", asked="pi-1"), trial("t1")], online, 0) == []
    assert schedule([trial("t1"), trial("t2")], online, 0) == [AskDevice("t1", "pi-1")]


def test_a_device_in_a_deployment_is_left_alone() -> None:
    assert schedule([trial("t1")], [Candidate("pi-1", "pi", is_busy=True)], 0) == []


def test_what_is_over_expires_and_frees_its_device() -> None:
    trials = [trial("t0", asked="pi-1", expires_at=10), trial("t1")]
    assert schedule(trials, [Candidate("pi-1", "pi")], 10) == [
        Expire("t0"),
        AskDevice("t1", "pi-1"),
    ]


def test_the_next_expiry_is_the_earliest() -> None:
    assert next_expiry([trial("a", expires_at=5), trial("b", expires_at=3)]) == 3
    assert next_expiry([]) is None


TRIALS = st.lists(
    st.builds(
        OpenTrial,
        trial_id=st.uuids().map(str),
        device_class=st.sampled_from(["pi", "orin"]),
        wanted_device=st.sampled_from([None, "d0", "d1"]),
        asked=st.none() | st.sampled_from(["d0", "d1", "d2"]),
        expires_at=st.floats(0, 20),
    ),
    max_size=10,
)
ONLINE = st.lists(
    st.builds(
        Candidate,
        device=st.sampled_from(["d0", "d1", "d2", "d3"]),
        device_class=st.sampled_from(["pi", "orin"]),
        is_busy=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda row: row.device,
)


@given(TRIALS, ONLINE, st.floats(0, 20))
def test_no_device_is_asked_twice_and_no_ended_trial_is_asked(
    trials: list[OpenTrial], online: list[Candidate], now: float
) -> None:
    decisions = schedule(trials, online, now)
    asked = [row.device for row in decisions if isinstance(row, AskDevice)]
    held = {row.asked for row in trials if row.asked and row.expires_at > now}
    assert len(asked) == len(set(asked))
    assert not set(asked) & held
    ids = [row.trial_id for row in decisions]
    assert len(ids) == len(set(ids))
