"""One device that is killed again and again during real updates, and looked at from outside.

A lane has a real agent process, a broker and a control plane of its own. While the agent is dead,
and before the next kill while it lives, `look` is what an application would find at the stable path:

    1. `active` leads to a file whose SHA-256 is the one in its manifest, signed by the owner
    2. ONNX Runtime loads that file, and it computes what this version must compute
    3. the version is what was active or last good before, or one that was desired since
    4. a state that is waited for comes: after every kill the agent goes on
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import onnxruntime

from support.agent_process import AgentProcess
from support.artifacts import TEST_PRIVATE_KEY
from support.brokers import BrokerProcess
from support.control_plane_stub import ControlPlaneStub
from support.tiny_models import make_real_artifact
from trimtab_protocol.base import parse_wire
from trimtab_protocol.errors import TrimtabError
from trimtab_protocol.lifecycle import PROGRESS, DeploymentState, is_final
from trimtab_protocol.manifest import SignedManifest
from trimtab_protocol.measurement import MeasureSpec
from trimtab_protocol.messages import Policy
from trimtab_protocol.signing import key_id_of, public_key_of, verify_manifest

NAME = "digits"
SMALLEST = MeasureSpec(processes=1, min_runs=11, min_steady_s=0.0, warm_up_s=0.0)
CHUNK_BYTES, PADDING_BYTES = 1024, 24 * 1024
UNDER_WAY = tuple(state for state in DeploymentState if not is_final(state))
SLOW_STATES = frozenset({DeploymentState.PROBING, DeploymentState.PROBATION})
"""In these the agent waits for a child, so a kill may come up to a second after they began."""

NOTHING_DESIRED = "nothing desired yet"
RANDOM_LIFE_S = 1.0
MAX_DELAY_S, QUICK_DELAY_S = 1.0, 0.02
MAX_PROBATION_S = 0.4
GOES_ON_WITHIN_S = 120.0
POLL_S = 0.001
SUPERSEDE_SHARE = 0.1
"""After so many of the kills a newer state is desired, whatever the present one is doing."""

PUBLIC_KEY = public_key_of(TEST_PRIVATE_KEY)
TRUSTED = {key_id_of(PUBLIC_KEY): PUBLIC_KEY}
RECORD = re.compile(rb'"deployment_id":"v(\d+)".*"state":"(\w+)"', re.DOTALL)


class Violation(Exception):  # noqa: N818 - a promise broken, not an error of this program
    """A device was found as it must never be."""


@dataclass(frozen=True, order=True)
class Progress:
    """How far the journal on disk says that an agent is."""

    version: int
    rank: int

    @property
    def state(self) -> DeploymentState:
        """Of the deployment."""
        return list(DeploymentState)[self.rank]

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way."""
        return self.version == 0 or is_final(self.state)

    def later(self, states: int) -> Progress:
        """So many states further on, in the next update if need be."""
        rank = (0 if self.is_over else self.rank + 1) + states - 1
        version = self.version + self.is_over + rank // len(UNDER_WAY)
        return Progress(version, rank % len(UNDER_WAY))


@dataclass
class Expected:
    """Which versions may be found active; 0 stands for none."""

    found: set[int] = field(default_factory=lambda: {0})
    under_way: set[int] = field(default_factory=set)


class Tally:
    """What all lanes have done together."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.killed_in: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.before_broker = self.loads = 0
        self.violation: str | None = None
        self._lock = threading.Lock()

    @property
    def kills(self) -> int:
        """So far."""
        return sum(self.killed_in.values())

    @property
    def is_over(self) -> bool:
        """Whether the lanes must end."""
        return self.violation is not None or self.kills >= self.wanted

    def add_kill(self, state: str, *, was_connected: bool) -> None:
        """An agent was killed in this state of its journal."""
        with self._lock:
            self.killed_in[state] += 1
            self.before_broker += not was_connected

    def add_load(self) -> None:
        """A model was loaded and computed right."""
        with self._lock:
            self.loads += 1

    def add_end(self, state: str) -> None:
        """An update ended."""
        with self._lock:
            self.ended[state] += 1

    def violate(self, text: str) -> None:
        """The first one counts."""
        with self._lock:
            self.violation = self.violation or text


def read_slot(link: Path) -> tuple[int, bytes]:
    """Version and model file behind a link; (0, b"") where there is no link.

    Raises:
        Violation: What is there is not whole, or not signed.
    """
    if not link.is_symlink():
        return 0, b""
    folder = link.resolve()
    try:
        signed = parse_wire(SignedManifest, (folder / "manifest.json").read_bytes(), what="it")
        manifest = verify_manifest(signed, TRUSTED)
        payload = (folder / "model.onnx").read_bytes()
    except (OSError, TrimtabError) as error:
        raise Violation(f"{link.name} leads to {folder.name}, not readable: {error}") from error
    if hashlib.sha256(payload).hexdigest() != manifest.payload.sha256:
        raise Violation(
            f"{link.name} leads to {len(payload)} bytes with another digest than signed"
        )
    return manifest.version, payload


def run_model(payload: bytes, version: int) -> None:
    """Load a model file and compute with it.

    Raises:
        Violation: It does not load, or computes something else than `version` times its input.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # the padding is an initializer that nothing uses
    x = numpy.array([[1, 2, 3, 4]], numpy.float32)
    try:
        session = onnxruntime.InferenceSession(payload, options, providers=["CPUExecutionProvider"])
        (y,) = session.run(None, {"x": x})
    except Exception as error:
        raise Violation(f"the active model, version {version}, does not run: {error}") from error
    if not numpy.array_equal(y, x * numpy.float32(version)):
        raise Violation(f"the active model, version {version}, computes {y}")


class Lane:
    """One device with its own broker and control plane, killed until there were enough kills."""

    def __init__(self, folder: Path, seed: str, tally: Tally) -> None:
        self._random = random.Random(seed)
        self._tally = tally
        self._models = folder / "agent" / "state" / "models" / NAME
        self._record = folder / "agent" / "state" / "records" / f"{NAME}.json"
        self._expected = Expected()
        self._desired = 0
        self._broker = BrokerProcess("mosquitto", folder / "broker")
        self._broker.start()
        self._plane = ControlPlaneStub(self._broker.port)
        self._agent = AgentProcess(folder / "agent", self._broker.port, 'log_level = "warning"')

    def run(self) -> None:
        """Kill until there were enough; then the agent must finish one more update in peace."""
        try:
            while not self._tally.is_over:
                self._live_and_die()
            if self._tally.violation is None:
                self._finish_in_peace()
        except Violation as error:
            self._tally.violate(str(error))
        finally:
            self._agent.stop()
            self._plane.close()
            self._broker.stop()

    def _live_and_die(self) -> None:
        births = len(self._plane.births)
        self._agent.start()
        try:
            if self._random.random() < 0.5:
                self._live_for(self._random.uniform(0, RANDOM_LIFE_S))
            else:
                self._live_until(self._progress().later(self._random.choice((1, 1, 2, 3))))
            self._look()
        finally:
            self._agent.kill()
        now = self._progress()
        state = now.state.value if now.version else NOTHING_DESIRED
        self._tally.add_kill(state, was_connected=len(self._plane.births) > births)
        self._look()
        if self._random.random() < SUPERSEDE_SHARE:
            self._desire_next()

    def _finish_in_peace(self) -> None:
        self._agent.start()
        self._wait_for("the last update to end", lambda now: now.is_over and self._is_newest(now))
        self._desire_next()
        self._wait_for(
            "an update in peace to end", lambda now: now.is_over and self._is_newest(now)
        )
        ended_as = self._progress().state
        if ended_as is not DeploymentState.COMMITTED:
            raise Violation(f"an update in peace ended as {ended_as.value}")
        self._look()
        if self._desired not in self._expected.found:
            raise Violation(f"version {self._desired} is committed and not active")

    def _live_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._keep_updates_coming(self._progress())
            time.sleep(POLL_S)

    def _live_until(self, target: Progress) -> None:
        what = f"version {target.version} to be {target.state.value}"
        self._wait_for(what, lambda now: now >= target)
        is_slow = target.state in SLOW_STATES
        time.sleep(self._random.uniform(0, MAX_DELAY_S if is_slow else QUICK_DELAY_S))

    def _wait_for(self, what: str, condition: Callable[[Progress], bool]) -> None:
        until = time.monotonic() + GOES_ON_WITHIN_S
        while not condition(now := self._progress()):
            self._keep_updates_coming(now)
            if time.monotonic() > until:
                raise Violation(
                    f"waited {GOES_ON_WITHIN_S:.0f} s for {what}; version {now.version} is "
                    f"{now.state.value}; log: {self._agent.log()[-800:]}"
                )
            time.sleep(POLL_S)

    def _keep_updates_coming(self, now: Progress) -> None:
        if now.is_over and self._is_newest(now):
            if now.version:
                self._tally.add_end(now.state.value)
            self._desire_next()

    def _is_newest(self, now: Progress) -> bool:
        return now.version == self._desired

    def _desire_next(self) -> None:
        self._desired += 1
        self._expected.under_way.add(self._desired)
        signed, payload = make_real_artifact(
            self._desired,
            scale=float(self._desired),
            padding_bytes=PADDING_BYTES,
            chunk_bytes=CHUNK_BYTES,
        )
        policy = Policy(probe=SMALLEST, probation_s=self._random.uniform(0, MAX_PROBATION_S))
        self._plane.desire(signed, payload, deployment_id=f"v{self._desired}", policy=policy)

    def _progress(self) -> Progress:
        try:
            match = RECORD.search(self._record.read_bytes())
        except FileNotFoundError:
            return Progress(0, 0)
        if match is None:
            raise Violation(f"the journal {self._record} is not readable")
        return Progress(int(match[1]), PROGRESS[DeploymentState(match[2].decode())])

    def _look(self) -> None:
        """Judge what is there now; what may be there next time follows from it."""
        now, expected = self._progress(), self._expected
        good, _payload = read_slot(self._models / "last_good")
        version, payload = read_slot(self._models / "active")
        if version not in expected.found | expected.under_way:
            allowed = sorted(expected.found | expected.under_way)
            raise Violation(f"version {version} is active; only {allowed} may be")
        if version:
            run_model(payload, version)
            self._tally.add_load()
        first = now.version + now.is_over
        expected.found = {version, good}
        expected.under_way = {number for number in expected.under_way if number >= first}
