"""What a hook is asked and what its end says: pure.

Exit 0 is go, 21 is later, anything else (a signal, no answer in time) is abort.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

EXIT_LATER = 21
"""As in Mender's state scripts, so that those can be taken over."""


class HookPoint(str, Enum):
    """When a hook is called; the value is the name of its file."""

    BEFORE_ACTIVATE = "before-activate"
    AFTER_ACTIVATE = "after-activate"
    AFTER_ROLLBACK = "after-rollback"


class Verdict(str, Enum):
    """What a hook says."""

    GO = "go"
    LATER = "later"
    ABORT = "abort"


@dataclass(frozen=True)
class HookCall:
    """One question to a hook; the same one may be asked several times."""

    point: HookPoint
    deployment_id: str
    name: str
    artifact: str
    path: str


@dataclass(frozen=True)
class HookResult:
    """How a hook ended."""

    call: HookCall
    verdict: Verdict
    detail: str


def judge_exit(return_code: int) -> tuple[Verdict, str]:
    """What an exit code says, and how to say it to a person; below 0 it was a signal."""
    if return_code == 0:
        return Verdict.GO, "said go"
    if return_code == EXIT_LATER:
        return Verdict.LATER, "said later"
    if return_code < 0:
        return Verdict.ABORT, f"was ended by signal {-return_code}"
    return Verdict.ABORT, f"ended with code {return_code}"
