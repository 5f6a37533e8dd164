"""A fault on its way to one point of one state, and the loop that carries an update through it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from support.agent_rig import AgentRig, PowerCut
from support.faults import Fault
from support.power import UnsyncedDisk
from trimtab_agent.disk import Disk, storage_errors
from trimtab_agent.measure.jobs import Job
from trimtab_agent.store import Store
from trimtab_protocol.errors import StorageError
from trimtab_protocol.lifecycle import DeploymentState, is_final

DEPLOYMENT = "to-2"
MAX_TURNS = 2_000


@dataclass
class Strike:
    """The observer of a rig's disk; it strikes once, and sees what is active at every point.

    Args:
        root: The agent's folder.
        fault: What strikes.
        state: In which state of the update; None strikes never.
        point: At which point in that state, from 0.
        are_changes_lost: See `UnsyncedDisk.lose`.
        proof: Must hold at every point in the state.
    """

    root: Path
    fault: Fault
    state: DeploymentState | None
    point: int = 0
    are_changes_lost: bool = False
    proof: Callable[[AgentRig], bool] = lambda _rig: True
    points: int = field(default=0, init=False)
    where: str = field(default="", init=False)
    seen_active: set[tuple[DeploymentState | None, str]] = field(default_factory=set, init=False)
    began_s: float | None = field(default=None, init=False)
    is_over: bool = field(default=False, init=False)
    rig: AgentRig | None = field(default=None, init=False)
    _marks: tuple[tuple[int, int], ...] | None = field(default=None, init=False)
    _state: DeploymentState | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._unsynced = UnsyncedDisk(self.root)

    @property
    def has_struck(self) -> bool:
        """Whether the point was ever reached."""
        return self.began_s is not None

    def __call__(self, step: str, path: Path) -> None:
        """A step on the disk is about to be done."""
        if self.rig is None:
            return
        self._pass_point(self.rig, step, path)
        self.refuse(step)
        self._unsynced.watch(step, path)

    def before_turn(self) -> None:
        """The loop is about to turn."""
        assert self.rig is not None
        self._pass_point(self.rig, "turn", self.root)
        if self.began_s is None or self.is_over:
            return
        if self.rig.clock.monotonic_s() - self.began_s >= self.fault.lasts_s:
            self.is_over = True
            self.fault.end(self.rig)

    def refuse(self, step: str) -> None:
        """Refuse what the disk was asked for, while the fault lasts."""
        if step in self.fault.refused and self.has_struck and not self.is_over:
            self.is_over = self.fault.is_once
            raise OSError(self.fault.errno, os.strerror(self.fault.errno))

    @contextlib.contextmanager
    def ruling(self, rig: AgentRig) -> Iterator[None]:
        """What goes to the disk beside `Disk` obeys too: syncing, the part file, files of a child."""
        self.rig = rig
        write, truncate, start = os.pwrite, os.ftruncate, rig.children.start

        def pwrite(descriptor: int, content: bytes, offset: int) -> int:
            self.refuse("part")
            return write(descriptor, content, offset)

        def ftruncate(descriptor: int, length_bytes: int) -> None:
            self.refuse("part")
            truncate(descriptor, length_bytes)

        def start_child(job: Job) -> None:
            with storage_errors("start a child in", self.root):
                self.refuse("child")
            start(job)

        with (
            mock.patch.object(os, "pwrite", pwrite),
            mock.patch.object(os, "ftruncate", ftruncate),
            mock.patch.object(rig.children, "start", start_child),
            self._unsynced.seeing_fsync(),
        ):
            yield

    def _look(self) -> DeploymentState | None:
        """What is active and in which state; read again only when a file has changed."""
        paths = (self.root / "records" / "digits.json", self.root / "models" / "digits" / "active")
        files = [path for path in (*paths, *sorted(paths[1].glob("*"))) if path.exists()]
        marks = tuple((path.stat().st_ino, path.stat().st_mtime_ns) for path in files)
        if marks != self._marks:
            self._marks, self._state = marks, read_state(self.root)
            self.seen_active.add((self._state, active_in(self.root)))
        return self._state

    def _pass_point(self, rig: AgentRig, step: str, path: Path) -> None:
        state = self._look()
        if state is None or state is not self.state:
            return
        is_fetching = state is DeploymentState.FETCHING
        if is_fetching and self.fault.awaits_chunk and not rig.delivery.outgoing:
            return
        assert self.proof(rig), f"{state.value}, before {step} {path.name}"
        self.points += 1
        if self.has_struck or self.points <= self.point:
            return
        self.began_s, self.where = (
            rig.clock.monotonic_s(),
            f"point {self.point}: {step} {path.name}",
        )
        self.fault.strike(rig)
        if self.fault.is_power_lost:
            self._unsynced.lose(are_changes_lost=self.are_changes_lost)
        if self.fault.is_cut:
            raise PowerCut


def read_state(root: Path) -> DeploymentState | None:
    """Which state of the update the journal on the disk says; None before it was taken up."""
    try:
        record = json.loads((root / "records" / "digits.json").read_bytes())["deployment"]
    except FileNotFoundError:
        return None
    return DeploymentState(record["state"]) if record["deployment_id"] == DEPLOYMENT else None


def active_in(root: Path) -> str:
    """What an application would find; asserts that it is whole."""
    slot = Store(root, Disk()).active("digits")
    assert slot is None or slot.is_whole(), f"{slot.ref} is active and not whole"
    return str(slot.ref) if slot is not None else "nothing"


def carry_through(rig: AgentRig, strike: Strike) -> None:
    """The loop of the daemon until the update has ended: a refused step is logged, and it goes on."""
    for _ in range(MAX_TURNS):
        strike.before_turn()
        try:
            is_busy = rig.turn()
        except StorageError:
            is_busy = False  # it is tried again at the next tick
        if is_busy:
            continue
        if _has_ended(rig, strike):
            return
        rig.clock.pass_time(1.0)
        with contextlib.suppress(StorageError):
            rig.tools.bench.on_tick(rig.clock.monotonic_s())
    raise AssertionError(f"{MAX_TURNS} turns, and still {rig.state()}; {strike.where}")


def _has_ended(rig: AgentRig, strike: Strike) -> bool:
    state = rig.state()
    is_idle = rig.tools.bench.owner is None
    is_fault_over = not strike.has_struck or strike.is_over
    return state is not None and is_final(state) and is_idle and is_fault_over
