"""What can go wrong with a device, as things that strike it at one instant of an update.

    strike = Strike(root, FAULTS["disk full"], state, point=0)
    rig = AgentRig(root, strike)
    carry_through(rig, strike)

A *point* is an instant in a state: before a step on the disk, or before a turn of the loop. Which
state it is, the journal on the disk says.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

from support.agent_rig import AgentRig
from support.mortal_children import MortalChildren

CANDIDATE, INCUMBENT = "digits@2", "digits@1"
A_YEAR_S = 365 * 86_400.0
CHUNK = 1024


def _nothing(_rig: AgentRig) -> None:
    return


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Args:
        strike: What happens at its instant.
        end: What happens when it is over.
        lasts_s: How long it lasts, in simulated seconds; 0 for an instant.
        refused: Steps of the disk that are refused while it lasts.
        errno: With which error.
        is_once: Only the first of these steps is refused.
        awaits_chunk: In `fetching` it strikes only while a chunk is on its way.
        is_everywhere: Every point in the state is tried, not only the first.
        is_cut: The agent ends here and starts again.
        is_power_lost: What was not synced is lost with it.
    """

    strike: Callable[[AgentRig], None] = _nothing
    end: Callable[[AgentRig], None] = _nothing
    lasts_s: float = 0.0
    refused: frozenset[str] = frozenset()
    errno: int = errno.ENOSPC
    is_once: bool = False
    awaits_chunk: bool = False
    is_everywhere: bool = True
    is_cut: bool = False
    is_power_lost: bool = False


def _lose_broker(rig: AgentRig) -> None:
    rig.delivery.is_silent = True
    rig.delivery.outgoing.clear()


def _reconnect(rig: AgentRig) -> None:
    rig.delivery.is_silent = False
    rig.tools.bench.on_connected(rig.clock.monotonic_s())


def _next_chunk(rig: AgentRig) -> tuple[str, int, bytes]:
    """Taken from those on their way; where none is, a late one that nobody waits for any more."""
    if rig.delivery.outgoing:
        return rig.delivery.outgoing.popleft()
    sha256, content = list(rig.delivery.payloads.items())[-1]
    return sha256, 0, content[:CHUNK]


def _repeat_chunk(rig: AgentRig) -> None:
    rig.delivery.outgoing.extendleft([_next_chunk(rig)] * 3)


def _corrupt_chunk(rig: AgentRig) -> None:
    sha256, index, chunk = _next_chunk(rig)
    flipped = bytes([chunk[0] ^ 1]) + chunk[1:]
    rig.delivery.outgoing.appendleft((sha256, index, flipped))


def _corrupt_chunk_for_ever(rig: AgentRig) -> None:
    _corrupt_chunk(rig)
    rig.delivery.corrupt(rig.delivery.outgoing[0][1])


def _lose_chunk(rig: AgentRig) -> None:
    rig.delivery.outgoing.popleft()


def _reverse_chunks(rig: AgentRig) -> None:
    """Those on their way; where none is, all of them come late and from the last to the first."""
    if not rig.delivery.outgoing:
        sha256, content = list(rig.delivery.payloads.items())[-1]
        chunks = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
        rig.delivery.outgoing.extend((sha256, index, row) for index, row in enumerate(chunks))
    rig.delivery.outgoing.reverse()


def _jump(seconds: float) -> Callable[[AgentRig], None]:
    def strike(rig: AgentRig) -> None:
        rig.clock.jumped_s += seconds

    return strike


def _end_child(how: str) -> Callable[[AgentRig], None]:
    def strike(rig: AgentRig) -> None:
        assert isinstance(rig.children, MortalChildren)
        rig.children.victim, rig.children.ends_by = CANDIDATE, how
        rig.children.folder = rig.root / "jobs"

    return strike


HARMLESS = Fault()

EVERY_STEP = frozenset({
    "write", "fsync", "rename", "symlink", "hard_link", "remove", "fsync_folder", "part", "child",
})  # fmt: skip
NEEDS_ROOM = EVERY_STEP - {"remove", "fsync_folder"}
"""`part` is a chunk's way into the part file and `child` the files of a child, both beside `Disk`."""


def _on_delivery(strike: Callable[[AgentRig], None]) -> Fault:
    return Fault(strike, awaits_chunk=True)


def _on_child(how: str) -> Fault:
    return Fault(_end_child(how), is_everywhere=False)  # a real process each


def _broker_gone(seconds: float) -> Fault:
    return Fault(_lose_broker, _reconnect, lasts_s=seconds, awaits_chunk=True)


FAULTS: dict[str, Fault] = {
    "kill -9": Fault(is_cut=True),
    "power cut": Fault(is_cut=True, is_power_lost=True),
    "disk full": Fault(lasts_s=20, refused=NEEDS_ROOM),
    "no room for files": Fault(lasts_s=20, refused=frozenset({"write", "part", "child"})),
    "disk read-only": Fault(lasts_s=20, refused=EVERY_STEP, errno=errno.EROFS),
    "one step refused": Fault(lasts_s=20, refused=EVERY_STEP, is_once=True),
    "broker gone 20 s": _broker_gone(20),
    "broker gone 60 s": _broker_gone(60),
    "chunk corrupted": _on_delivery(_corrupt_chunk),
    "always corrupted": _on_delivery(_corrupt_chunk_for_ever),
    "chunk missing": _on_delivery(_lose_chunk),
    "chunk repeated": _on_delivery(_repeat_chunk),
    "chunks reordered": _on_delivery(_reverse_chunks),
    "clock a year ahead": Fault(_jump(A_YEAR_S)),
    "clock a year back": Fault(_jump(-A_YEAR_S)),
    "child crashes": _on_child("crash"),
    "child hangs": _on_child("hang"),
    "child out of memory": _on_child("memory"),
}
"""The broker is gone for less, and for more, than the 30 s after which the rig's download gives up."""
