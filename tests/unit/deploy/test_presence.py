from __future__ import annotations

from itertools import permutations

import pytest

from trimtab_deploy.engine.presence import Seen, take_birth, take_status
from trimtab_protocol.messages import Presence, Status


def status(presence: Presence, session: str) -> Status:
    return Status(presence=presence, boot_id="b", session_id=session)


def test_an_old_will_does_not_hide_a_new_session() -> None:
    seen = take_birth(Seen("old", Presence.ONLINE), "new", is_replayed=False)
    assert take_status(seen, status(Presence.OFFLINE, "old")) == Seen("new", Presence.ONLINE)


def test_the_will_of_the_current_session_counts() -> None:
    seen = Seen("now", Presence.ONLINE)
    assert take_status(seen, status(Presence.OFFLINE, "now")).presence is Presence.OFFLINE


def test_online_begins_a_session() -> None:
    assert take_status(Seen(), status(Presence.ONLINE, "s")) == Seen("s", Presence.ONLINE)


@pytest.mark.parametrize("order", list(permutations(["birth", "status"])))
def test_a_replayed_birth_beside_its_will_is_offline_in_any_order(order: tuple[str, ...]) -> None:
    seen = Seen()
    for step in order:
        if step == "birth":
            seen = take_birth(seen, "s", is_replayed=True)
        else:
            seen = take_status(seen, status(Presence.OFFLINE, "s"))
    assert seen == Seen("s", Presence.OFFLINE)


@pytest.mark.parametrize("order", list(permutations(["birth", "status"])))
def test_a_replayed_birth_beside_online_is_online_in_any_order(order: tuple[str, ...]) -> None:
    seen = Seen()
    for step in order:
        if step == "birth":
            seen = take_birth(seen, "s", is_replayed=True)
        else:
            seen = take_status(seen, status(Presence.ONLINE, "s"))
    assert seen == Seen("s", Presence.ONLINE)
