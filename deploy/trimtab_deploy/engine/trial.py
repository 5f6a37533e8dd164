"""Which device measures which artifact, and which trials are over.

Rules:
    1. A trial that was not answered at its expiry is expired, asked or not.
    2. A device has at most one open ask, and gets none while a deployment is fetched or probed on
       it: both want the CPU for themselves.
    3. Trials are served in the order of their creation; one whose device is busy or absent does not
       hold up the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class OpenTrial:
    """A trial that has not ended. `asked` is the device that was asked, if one was."""

    trial_id: str
    device_class: str
    wanted_device: str | None
    asked: str | None
    expires_at: float


@dataclass(frozen=True)
class Candidate:
    """A device that is online; `is_busy` while a deployment keeps it from measuring."""

    device: str
    device_class: str
    is_busy: bool = False


@dataclass(frozen=True)
class AskDevice:
    """Ask this device for this trial."""

    trial_id: str
    device: str


@dataclass(frozen=True)
class Expire:
    """Nobody answered in time."""

    trial_id: str


def schedule(
    trials: Sequence[OpenTrial], online: Iterable[Candidate], now: float
) -> list[AskDevice | Expire]:
    """What to do with the open trials.

    Args:
        trials: Open ones, oldest first.
        online: Devices that can be asked.
        now: Unix time in seconds.
    """
    over = [row for row in trials if now >= row.expires_at]
    alive = [row for row in trials if now < row.expires_at]
    taken = {row.asked for row in alive if row.asked is not None}
    free = [row for row in online if not row.is_busy and row.device not in taken]
    decisions: list[AskDevice | Expire] = [Expire(row.trial_id) for row in over]
    for trial in alive:
        chosen = None if trial.asked is not None else _choose(trial, free)
        if chosen is not None:
            free.remove(chosen)
            decisions.append(AskDevice(trial.trial_id, chosen.device))
    return decisions


def next_expiry(trials: Iterable[OpenTrial]) -> float | None:
    """When the first of the open trials is over."""
    return min((row.expires_at for row in trials), default=None)


def _choose(trial: OpenTrial, free: Iterable[Candidate]) -> Candidate | None:
    for row in free:
        is_wanted = trial.wanted_device in (None, row.device)
        if is_wanted and row.device_class == trial.device_class:
            return row
    return None
