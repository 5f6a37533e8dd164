"""Whether a device is there, from births and wills that may arrive in any order.

Rules:
    1. A birth that is heard live, or an `online`, makes its session the current one.
    2. An `offline` counts only if it is of the current session: the will of an old connection,
       which a broker may send long after the device is back, is passed over.
    3. A birth that the broker replays (retained) says what the device is, not that it is there:
       the will of the same session may stand beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from trimtab_protocol.messages import Presence, Status


@dataclass(frozen=True)
class Seen:
    """The current session of a device and whether it is there."""

    session_id: str | None = None
    presence: Presence = Presence.OFFLINE


def take_birth(seen: Seen, session_id: str, *, is_replayed: bool) -> Seen:
    """After a birth."""
    if is_replayed:
        return replace(seen, session_id=session_id)
    return Seen(session_id, Presence.ONLINE)


def take_status(seen: Seen, status: Status) -> Seen:
    """After a status; unchanged for the will of another session."""
    if status.presence is Presence.ONLINE:
        return Seen(status.session_id, Presence.ONLINE)
    if seen.session_id is not None and status.session_id != seen.session_id:
        return seen
    return Seen(status.session_id, Presence.OFFLINE)
