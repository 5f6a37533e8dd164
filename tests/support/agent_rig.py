"""An agent without processes and sockets: real store, journal, outbox and decisions on a real
folder; children, clock and control plane are simulated. A power cut is a BaseException, so that
no handler of the agent can hide it.

    rig = AgentRig(tmp_path)
    rig.desire(signed, payload)
    rig.settle()
    assert rig.state() == DeploymentState.COMMITTED
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from support.artifacts import TEST_PRIVATE_KEY
from support.factories import a_measurement, trusting
from trimtab_agent.config import FetchSettings
from trimtab_agent.deployments import Deployments
from trimtab_agent.disk import Disk
from trimtab_agent.hook_rules import HookCall, HookPoint, HookResult, Verdict
from trimtab_agent.journal import Journal
from trimtab_agent.local.board import Board
from trimtab_agent.local.views import read_views
from trimtab_agent.measure.jobs import Job, JobKind, JobResult, Settings
from trimtab_agent.outbox import Outbox
from trimtab_agent.store import Store
from trimtab_agent.tools import Clock, Identity, Tools
from trimtab_agent.trials import Trials
from trimtab_agent.workbench import Workbench
from trimtab_protocol.errors import ErrorCode, StorageError
from trimtab_protocol.lifecycle import DeploymentState, is_final
from trimtab_protocol.manifest import ArtifactRef, Payload, RuntimeName, SignedManifest
from trimtab_protocol.measurement import Comparison
from trimtab_protocol.messages import Ask, Desired, DesiredModel, Policy, RuntimeFact, parse_report
from trimtab_protocol.reading import known
from trimtab_protocol.signing import read_manifest

DEVICE_CLASS = "test-board-t1"
PROBATION_S = 10.0
MAX_HOLD_S = 3600.0


class PowerCut(BaseException):
    """The power is gone: nothing after this instant happens."""


@dataclass
class SimulatedClock:
    """Time that passes only when it is told to."""

    seconds: float = 1_000_000.0
    jumped_s: float = 0.0

    def now(self) -> float:
        return self.seconds + self.jumped_s

    def monotonic_s(self) -> float:
        return self.seconds

    def jump(self, seconds: float) -> None:
        """Somebody sets the clock; no time passes."""
        self.jumped_s += seconds

    def pass_time(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class SimulatedChildren:
    """Children that find what the test says: `verdicts[artifact] = (error code, detail)`."""

    verdicts: dict[str, tuple[ErrorCode, str]] = field(default_factory=dict)
    p90_ratio: tuple[float, float, float] = (0.8, 0.75, 0.85)
    p90_ms: float = 10.0
    started: deque[Job] = field(default_factory=deque)
    jobs: list[Job] = field(default_factory=list)
    killed_count: int = 0

    def start(self, job: Job) -> None:
        self.started.append(job)
        self.jobs.append(job)

    def kill(self) -> None:
        self.killed_count += 1
        self.started.clear()

    def finish(self) -> JobResult:
        job = self.started.popleft()
        verdict = self.verdicts.get(f"{job.subject.artifact}:{job.kind.value}")
        verdict = verdict or self.verdicts.get(str(job.subject.artifact))
        if verdict is not None:
            return JobResult(job_id=job.job_id, error_code=verdict[0], detail=verdict[1])
        if job.kind is JobKind.CHECK:
            return JobResult(job_id=job.job_id)
        p90_ms = known(self.p90_ms, self.p90_ms, self.p90_ms)
        measurement = a_measurement(
            artifact=job.subject.artifact, p90_ms=p90_ms, size_bytes=job.subject.size_bytes
        )
        if job.incumbent is None:
            return JobResult(job_id=job.job_id, measurement=measurement)
        ratio = known(*self.p90_ratio)
        comparison = Comparison(incumbent=job.incumbent.artifact, p50_ratio=ratio, p90_ratio=ratio)
        return JobResult(
            job_id=job.job_id,
            measurement=measurement,
            incumbent=a_measurement(artifact=job.incumbent.artifact),
            comparison=comparison,
        )


@dataclass
class SimulatedHooks:
    """Hooks that say what the test says: `says[point]` is one verdict after the other, then go."""

    says: dict[HookPoint, list[Verdict]] = field(default_factory=dict)
    started: deque[HookCall] = field(default_factory=deque)
    calls: list[HookCall] = field(default_factory=list)
    is_refused: bool = False

    def has(self, point: HookPoint) -> bool:
        return point in self.says

    def start(self, call: HookCall) -> None:
        if self.is_refused:
            raise StorageError("no process is to be had")
        self.started.append(call)
        self.calls.append(call)

    def finish(self) -> HookResult:
        call = self.started.popleft()
        verdicts = self.says[call.point]
        verdict = verdicts.pop(0) if verdicts else Verdict.GO
        return HookResult(call, verdict, f"{call.point.value} said {verdict.value}")


class SimulatedDelivery:
    """The control plane's side of a delivery, with verbs for everything that can go wrong."""

    def __init__(self) -> None:
        self.payloads: dict[str, bytes] = {}
        self.requested: list[int] = []
        self._tampered: dict[int, Callable[[bytes], bytes]] = {}
        self._lost: set[int] = set()
        self.outgoing: deque[tuple[str, int, bytes]] = deque()
        self.is_silent = False

    def corrupt(self, index: int) -> None:
        """Change one byte of a chunk, every time it is sent."""
        self._tampered[index] = lambda chunk: bytes([chunk[0] ^ 1]) + chunk[1:]

    def shorten(self, index: int) -> None:
        """Leave away the end of a chunk, every time it is sent."""
        self._tampered[index] = lambda chunk: chunk[:-1]

    def empty(self, index: int) -> None:
        """Say "not here" for a chunk."""
        self._tampered[index] = lambda _chunk: b""

    def lose_once(self, index: int) -> None:
        """Drop a chunk the first time it is asked for."""
        self._lost.add(index)

    def heal(self) -> None:
        self._tampered.clear()

    def ask(self, payload: Payload, indices: list[int]) -> None:
        self.requested += indices
        if self.is_silent:
            return
        content = self.payloads[payload.sha256]
        for index in indices:
            if index in self._lost:
                self._lost.discard(index)
                continue
            start = index * payload.chunk_bytes
            chunk = content[start : start + payload.chunk_bytes]
            tamper = self._tampered.get(index, bytes)
            self.outgoing.append((payload.sha256, index, tamper(chunk)))


class AgentRig:
    """One device. `restart()` is what a kill -9 and a new start leave: only the folder survives."""

    def __init__(self, root: Path, observe: Callable[[str, Path], None] | None = None) -> None:
        self.root = root
        self.clock = SimulatedClock()
        self.delivery = SimulatedDelivery()
        self.children = SimulatedChildren()
        self.hooks = SimulatedHooks()
        self.free_disk_bytes = 10**9
        self.free_disk: Callable[[], int] = lambda: self.free_disk_bytes
        self.max_store_bytes = 0
        self.max_payload_cache_bytes = 10**9
        self.trusted_keys = trusting(TEST_PRIVATE_KEY)
        self.runtimes: tuple[RuntimeFact, ...] = (
            RuntimeFact(name=RuntimeName.ONNXRUNTIME, version="1.23.0"),
        )
        self._sequence = itertools.count(1)
        self._desired: dict[str, DesiredModel] = {}
        self.start(observe)

    def start(self, observe: Callable[[str, Path], None] | None = None) -> None:
        """Build the agent on the folder and resume."""
        disk = Disk(observe) if observe is not None else Disk()
        store = Store(self.root, disk)
        self.children.started.clear()
        self.delivery.outgoing.clear()
        self.hooks.started.clear()
        self.board = Board(MAX_HOLD_S, self.clock.monotonic_s)
        bench = Workbench(store, self.children, self.delivery.ask)
        self.tools = Tools(
            store=store,
            disk=disk,
            outbox=Outbox(self.root / "outbox", disk),
            bench=bench,
            settings=Settings(device_class=DEVICE_CLASS, threads=1),
            fetch=FetchSettings(chunk_timeout_s=2.0, stall_timeout_s=30.0),
            identity=Identity(
                DEVICE_CLASS,
                self.runtimes,
                4 * 10**9,
            ),
            trusted_keys=self.trusted_keys,
            free_disk_bytes=lambda: self.free_disk(),  # noqa: PLW0108 - a test may replace it
            max_store_bytes=self.max_store_bytes,
            hooks=self.hooks,
            in_use=self.board,
            clock=Clock(self.clock.now, self.clock.monotonic_s),
        )
        self.journal = Journal(self.tools)
        self.deployments = Deployments(self.tools, self.journal, self.max_payload_cache_bytes)
        self.trials = Trials(self.tools, self.journal, self.max_payload_cache_bytes)
        self.deployments.resume()
        self._show()

    def desire(
        self,
        signed: SignedManifest,
        payload: bytes,
        *,
        deployment_id: str | None = None,
        name: str = "digits",
        policy: Policy | None = None,
    ) -> str:
        """The control plane wants this artifact; gives the deployment's id."""
        number = next(self._sequence)
        deployment_id = deployment_id or f"d{number}"
        self.offer(signed, payload)
        policy = policy or Policy(probation_s=PROBATION_S)
        self._desired[name] = DesiredModel(
            deployment_id=deployment_id, signed=signed, policy=policy
        )
        self.deployments.take(Desired(sequence=number, models=self._desired))
        return deployment_id

    def desire_nothing(self) -> None:
        """The control plane takes back every desire."""
        self._desired.clear()
        self.deployments.take(Desired(sequence=next(self._sequence), models={}))

    def offer(self, signed: SignedManifest, payload: bytes) -> None:
        """The control plane can deliver this payload."""
        self.delivery.payloads[read_manifest(signed).payload.sha256] = payload

    def ask(self, signed: SignedManifest, payload: bytes, *, trial_id: str = "t1") -> None:
        """The control plane asks for a trial."""
        self.offer(signed, payload)
        self.trials.take(Ask(trial_id=trial_id, signed=signed, expires_at=self.clock.now() + 600))

    def turn(self) -> bool:
        """One turn of the loop; False when there was nothing to do."""
        has_moved = self._step()
        self._show()
        return has_moved

    def _step(self) -> bool:
        self.deployments.work()
        if not self.deployments.has_heavy_work():
            self.trials.work()
        if self.delivery.outgoing:
            sha256, index, chunk = self.delivery.outgoing.popleft()
            self.tools.bench.on_chunk(sha256, index, chunk, self.clock.monotonic_s())
            return True
        if self.children.started:
            self.tools.bench.on_child_finished(self.children.finish())
            return True
        if self.hooks.started:
            self.deployments.on_hook_finished(self.hooks.finish())
            return True
        return False

    def settle(self, limit_s: float = 200.0) -> None:
        """Turn until every deployment is final and nothing moves; time passes when nothing else does."""
        until = self.clock.monotonic_s() + limit_s
        while self.clock.monotonic_s() < until:
            if self.turn():
                continue
            if self._is_settled():
                return
            self.clock.pass_time(1.0)
            self.tools.bench.on_tick(self.clock.monotonic_s())

    def run_until(self, state: DeploymentState, name: str = "digits") -> None:
        """Turn until a deployment is in this state."""
        for _ in range(10_000):
            if self.state(name) is state:
                return
            if not self.turn():
                self.clock.pass_time(1.0)
                self.tools.bench.on_tick(self.clock.monotonic_s())
        raise AssertionError(f"never {state.value}; it is {self.state(name)}")

    def state(self, name: str = "digits") -> DeploymentState | None:
        record = self.journal.newest(name)
        return record.state if record is not None else None

    def error_code(self, name: str = "digits") -> ErrorCode | None:
        record = self.journal.newest(name)
        return record.error_code if record is not None else None

    def active(self, name: str = "digits") -> ArtifactRef | None:
        """What is active, after checking that it is whole to the last byte."""
        slot = Store(self.root, Disk()).active(name)
        if slot is None:
            return None
        assert slot.is_whole(), f"{slot.ref} is active and not whole"
        return slot.ref

    def reports(self) -> list[tuple[str, str, ErrorCode | None]]:
        """(kind, state or trial id, error code) of everything in the outbox, oldest first."""
        rows: list[tuple[str, str, ErrorCode | None]] = []
        for path in sorted((self.root / "outbox").glob("[0-9]*.json")):
            report = parse_report(path.read_bytes())
            label = getattr(report, "state", None) or getattr(report, "trial_id", "")
            text = label.value if isinstance(label, DeploymentState) else str(label)
            rows.append((report.kind, text, report.error_code))
        return rows

    def _show(self) -> None:
        self.board.publish(read_views(self.tools.store, self.journal))

    def _is_settled(self) -> bool:
        records = [self.journal.newest(name) for name in self.journal.names()]
        is_idle = self.tools.bench.owner is None
        return is_idle and all(row is None or is_final(row.state) for row in records)
