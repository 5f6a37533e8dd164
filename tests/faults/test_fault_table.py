"""Every state of an update × every fault → what is active afterwards, and what is reported.

A device runs version 1 (OLD) and is updated to version 2 (NEW). In the state of the row the fault of
the column strikes: where it says so at every step on the disk and every turn of the loop, one after
the other. A disk or a broker recovers later; after a cut the agent starts again. A cell is

    new             NEW is active, `committed` is reported, without an error
    failed(code)    OLD is active and was never touched, `failed` is reported with this code
    back(code)      OLD is active again, `rolled_back` is reported with this code
    a | b           the one at some points in the state, the other at others
    never(why)      it cannot happen; that it cannot is looked at too

An update that ends as `failed` or `rolled_back` anyway is one whose golden vectors do not match, in the
probe or at the end of probation. Beside the cell, everywhere and at every step on the disk: what is
active is a whole file; it is OLD before `activating` and after an end without commit; each state is
reported once and in order.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from support.agent_rig import AgentRig, PowerCut
from support.artifacts import make_artifact
from support.faults import CANDIDATE, CHUNK, FAULTS, HARMLESS, INCUMBENT
from support.mortal_children import MortalChildren
from support.strike import DEPLOYMENT, Strike, active_in, carry_through
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import PROGRESS, TRANSITIONS, DeploymentState
from trimtab_protocol.messages import DeploymentReport, Policy, parse_report

OLD = make_artifact("digits", 1, bytes(i % 251 for i in range(3 * CHUNK)), chunk_bytes=CHUNK)
NEW = make_artifact("digits", 2, bytes(i % 241 for i in range(6 * CHUNK)), chunk_bytes=CHUNK)

S, C = DeploymentState, ErrorCode


@dataclass(frozen=True)
class Outcome:
    """What is active and what is reported, when all is over."""

    active: str
    state: DeploymentState
    code: ErrorCode | None = None


@dataclass(frozen=True)
class Cell:
    """The outcomes that come, each at some point; or why there is none, and the proof."""

    outcomes: frozenset[Outcome] = frozenset()
    why: str = ""
    proof: Callable[[AgentRig], bool] = lambda _rig: True

    def __or__(self, other: Cell) -> Cell:
        return Cell(self.outcomes | other.outcomes)


def failed(code: ErrorCode) -> Cell:
    return Cell(frozenset({Outcome(INCUMBENT, S.FAILED, code)}))


def back(code: ErrorCode) -> Cell:
    return Cell(frozenset({Outcome(INCUMBENT, S.ROLLED_BACK, code)}))


def never(why: str, proof: Callable[[AgentRig], bool]) -> Cell:
    return Cell(why=why, proof=proof)


new = Cell(frozenset({Outcome(CANDIDATE, S.COMMITTED)}))
bad, took_back = failed(C.MODEL_GOLDEN), back(C.MODEL_GOLDEN)
crash, hang, greed = C.MODEL_CRASH, C.MODEL_TIMEOUT, C.MODEL_MEMORY
lost, forged = failed(C.TRANSIENT_DELIVERY), failed(C.TRUST_CHUNK_DIGEST)
full, full_back = failed(C.STORAGE_WRITE), back(C.STORAGE_WRITE)

unasked = never("no chunk is on its way", lambda rig: not rig.delivery.outgoing)
no_child = never(
    "no child of the update runs",
    lambda rig: all(str(job.subject.artifact) != CANDIDATE for job in rig.children.started),
)


@dataclass(frozen=True)
class Grid:
    """A part of the table: the faults of its columns, and one row per state."""

    faults: tuple[str, ...]
    rows: dict[DeploymentState, tuple[Cell, ...]]


# fmt: off
CUTS_AND_DISKS = Grid(("kill -9", "power cut", "disk full", "no room for files", "disk read-only", "one step refused"), {
    S.ASSIGNED:    (new,       new,       new,       new,       new,       new | full),
    S.FETCHING:    (new,       new,       new,       new,       new,       new | full),
    S.VERIFYING:   (new,       new,       new,       new,       new,       new | full),
    S.STAGED:      (new,       new,       new,       new,       new,       new | full),
    S.PROBING:     (new,       new,       new,       new,       new,       new | full),
    S.ACTIVATING:  (new,       new,       new,       new,       new,       new | full_back),
    S.PROBATION:   (new,       new,       new,       new,       new,       new),
    S.COMMITTED:   (new,       new,       new,       new,       new,       new),
    S.FAILED:      (bad,       bad,       bad,       bad,       bad,       bad),
    S.ROLLED_BACK: (took_back, took_back, took_back, took_back, took_back, took_back),
})
DELIVERY = Grid(("broker gone 20 s", "broker gone 60 s", "chunk corrupted", "always corrupted", "chunk missing", "chunk repeated", "chunks reordered"), {
    S.ASSIGNED:    (new,       lost,      new,       forged,    unasked, new,       new),
    S.FETCHING:    (new,       lost,      new,       forged,    new,     new,       new),
    S.VERIFYING:   (new,       new,       new,       new,       unasked, new,       new),
    S.STAGED:      (new,       new,       new,       new,       unasked, new,       new),
    S.PROBING:     (new,       new,       new,       new,       unasked, new,       new),
    S.ACTIVATING:  (new,       new,       new,       new,       unasked, new,       new),
    S.PROBATION:   (new,       new,       new,       new,       unasked, new,       new),
    S.COMMITTED:   (new,       new,       new,       new,       unasked, new,       new),
    S.FAILED:      (bad,       bad,       bad,       bad,       unasked, bad,       bad),
    S.ROLLED_BACK: (took_back, took_back, took_back, took_back, unasked, took_back, took_back),
})
CLOCK_AND_CHILDREN = Grid(("clock a year ahead", "clock a year back", "child crashes", "child hangs", "child out of memory"), {
    S.ASSIGNED:    (new,       new,       no_child,      no_child,     no_child),
    S.FETCHING:    (new,       new,       no_child,      no_child,     no_child),
    S.VERIFYING:   (new,       new,       no_child,      no_child,     no_child),
    S.STAGED:      (new,       new,       no_child,      no_child,     no_child),
    S.PROBING:     (new,       new,       failed(crash), failed(hang), failed(greed)),
    S.ACTIVATING:  (new,       new,       no_child,      no_child,     no_child),
    S.PROBATION:   (new,       new,       back(crash),   back(hang),   back(greed)),
    S.COMMITTED:   (new,       new,       no_child,      no_child,     no_child),
    S.FAILED:      (bad,       bad,       no_child,      no_child,     no_child),
    S.ROLLED_BACK: (took_back, took_back, no_child,      no_child,     no_child),
})
# fmt: on

GRIDS = (CUTS_AND_DISKS, DELIVERY, CLOCK_AND_CHILDREN)
TABLE: dict[tuple[DeploymentState, str], Cell] = {
    (state, fault): cell
    for grid in GRIDS
    for state, row in grid.rows.items()
    for fault, cell in zip(grid.faults, row, strict=True)
}

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
SOME_DAY_S = 1_750_000_000.0

SPOILED: dict[DeploymentState, str] = {S.FAILED: "probe", S.ROLLED_BACK: "check"}
"""What has to go wrong for an update to come to this state at all."""

MAY_BE_ACTIVE = {
    **{state: {INCUMBENT} for state in S},
    S.ACTIVATING: {INCUMBENT, CANDIDATE},
    S.PROBATION: {INCUMBENT, CANDIDATE},  # it goes back first, and then writes it down
    S.COMMITTED: {CANDIDATE},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device that runs version 1 and has reported everything."""
    root = tmp_path_factory.mktemp("prepared")
    rig = AgentRig(root)
    rig.desire(*OLD, deployment_id="to-1")
    rig.settle()
    assert active_in(root) == INCUMBENT
    shutil.rmtree(root / "outbox")
    return root


def live(strike: Strike) -> AgentRig:
    """A life of the agent, from its start to the end of the update."""
    rig = AgentRig(strike.root, strike)
    rig.children, rig.clock.jumped_s = MortalChildren(), SOME_DAY_S
    rig.start(strike)
    if strike.state in SPOILED:
        rig.children.verdicts[f"{CANDIDATE}:{SPOILED[strike.state]}"] = (C.MODEL_GOLDEN, "other")
    with strike.ruling(rig):
        rig.desire(*NEW, deployment_id=DEPLOYMENT, policy=Policy(probation_s=3.0))
        carry_through(rig, strike)
    return rig


def reports(root: Path) -> list[tuple[DeploymentState, ErrorCode | None]]:
    """What is reported of the update, oldest first."""
    found = []
    for path in sorted((root / "outbox").glob("[0-9]*.json")):
        report = parse_report(path.read_bytes())
        if isinstance(report, DeploymentReport) and report.deployment_id == DEPLOYMENT:
            found.append((report.state, report.error_code))
    return found


def look(strike: Strike) -> Outcome:
    """What came out; and that nothing was wrong on the way."""
    for state, active in strike.seen_active:
        allowed = MAY_BE_ACTIVE[state] if state is not None else {INCUMBENT}
        assert active in allowed, f"{active} was active while {state}, {strike.where}"
    told = reports(strike.root)
    assert all(code is None for _state, code in told[:-1]), strike.where
    ranks = [PROGRESS[state] for state, _code in told]
    assert ranks == sorted(set(ranks)), f"each state once and in order, {strike.where}"
    return Outcome(active_in(strike.root), *told[-1])


def strike_at(strike: Strike) -> Outcome | None:
    """Let it strike, and see the update through; None if there is no such point in the state."""
    try:
        rig = live(strike)
    except PowerCut:
        assert active_in(strike.root) in {CANDIDATE, INCUMBENT}, strike.where
        later = Strike(strike.root, HARMLESS, None)
        later.where = strike.where
        rig = live(replace(later, state=strike.state, point=10**9))
        strike.seen_active |= later.seen_active
    if not strike.has_struck:
        return None
    found = look(strike)
    assert (rig.state(), rig.error_code()) == (found.state, found.code), strike.where
    return found


@pytest.mark.parametrize(
    ("state", "name"), [pytest.param(*key, id=f"{key[0].value}-{key[1]}") for key in TABLE]
)
def test_a_fault_in_a_state_ends_as_the_table_says(
    prepared: Path, tmp_path: Path, state: DeploymentState, name: str
) -> None:
    fault, cell = FAULTS[name], TABLE[state, name]
    seen: dict[Outcome, str] = {}
    for are_changes_lost in (False, True) if fault.is_power_lost else (False,):
        for point in itertools.count() if fault.is_everywhere else (0,):
            folder = tmp_path / f"{point}-{are_changes_lost}"
            shutil.copytree(prepared, folder, symlinks=True)
            strike = Strike(folder, fault, state, point, are_changes_lost)
            if cell.why:
                strike.fault, strike.proof = HARMLESS, cell.proof
            found = strike_at(strike)
            shutil.rmtree(folder)
            if found is None:
                break
            seen.setdefault(found, strike.where)
    if cell.why:
        assert seen, "the state was never reached"
    else:
        assert set(seen) == cell.outcomes, seen


def test_no_state_and_no_fault_is_missing_in_the_table() -> None:
    states = {state for state, _event in TRANSITIONS} | set(TRANSITIONS.values())
    assert states == set(S)
    assert set(TABLE) == set(itertools.product(states, FAULTS))


def describe(outcome: Outcome) -> str:
    code = f" `{outcome.code.value}`" if outcome.code is not None else ""
    active = "new" if outcome.active == CANDIDATE else "old"
    return f"{active}, `{outcome.state.value}`{code}"


def to_markdown(grid: Grid) -> str:
    """One table of docs/faults.md."""
    lines = [("", *grid.faults), ("---",) * (len(grid.faults) + 1)]
    for state, row in grid.rows.items():
        cells = (" or ".join(sorted(map(describe, cell.outcomes))) or "—" for cell in row)
        lines.append((f"`{state.value}`", *cells))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.faults[0])
def test_the_page_for_readers_says_the_same(grid: Grid) -> None:
    """`PYTHONPATH=tests python tests/faults/test_fault_table.py` prints what belongs there."""
    assert to_markdown(grid) in PAGE.read_text()


if __name__ == "__main__":
    print("\n\n".join(map(to_markdown, GRIDS)))
