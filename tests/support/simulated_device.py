"""A device that speaks the real contract over a real broker, and does what the test tells it.

It fetches with digests, reports from an outbox until acknowledged, and lives a deployment state by
state; only the model is not run: `ratio` and `refuses` say what its probe would have found.
"""

from __future__ import annotations

import hashlib
import itertools
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from support.measurements import make_comparison, make_measurement
from trimtab_protocol.api import DeviceCredentials
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import ArtifactRef, Manifest
from trimtab_protocol.messages import (
    Ack,
    Ask,
    Birth,
    DeploymentReport,
    DeploymentStatus,
    Desired,
    DesiredModel,
    Get,
    ModelStatus,
    Presence,
    Reported,
    Status,
    TrialReport,
    encode,
    parse_message,
)
from trimtab_protocol.signing import read_manifest
from trimtab_protocol.topics import (
    RETAINED,
    ChunkTopic,
    Leaf,
    chunk_filter,
    device_topic,
    parse_topic,
)

S = DeploymentState
WINDOW = 8
CHUNK_TIMEOUT_S = 2.0
RESEND_AFTER_S = 2.0
SESSIONS = itertools.count(1)


class NotHereError(Exception):
    """The control plane answered with an empty chunk."""


@dataclass
class Behaviour:
    """What the device does with a candidate.

    Args:
        ratio: Candidate p90 / incumbent p90 that its probe finds.
        refuses: Versions that fail in its probe.
        rolls_back: Versions that fail in its probation.
        hold_at: It stays in this state until `release` is called.
    """

    ratio: float = 0.8
    refuses: set[int] = field(default_factory=set)
    rolls_back: set[int] = field(default_factory=set)
    hold_at: DeploymentState | None = None


class SimulatedDevice:
    """One device. `connect` starts it, `close` ends it politely, `cut_power` does not."""

    def __init__(
        self,
        credentials: DeviceCredentials,
        device_class: str = "sim",
        behaviour: Behaviour | None = None,
    ) -> None:
        self.credentials = credentials
        self.device_class = device_class
        self.behaviour = behaviour or Behaviour()
        self.active: dict[str, ArtifactRef] = {}
        self.last_good: dict[str, ArtifactRef] = {}
        self.payloads: dict[str, bytes] = {}
        self.desired: list[Desired] = []
        self.asks: list[Ask] = []
        self.acked: list[str] = []
        self.outbox: dict[str, bytes] = {}
        self.handled: set[str] = set()
        self.session_id = ""
        self._chunks: queue.Queue[tuple[ChunkTopic, bytes]] = queue.Queue()
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._released = threading.Event()
        self._status: dict[str, DeploymentStatus] = {}
        self._paho: paho.Client | None = None
        self._worker: threading.Thread | None = None
        self._online = threading.Event()
        self._report_number = itertools.count(1)

    # Verbs

    def connect(self) -> SimulatedDevice:
        """Connect with a new session, send a birth, and begin to react."""
        name = self.credentials.device
        self.session_id = f"session-{next(SESSIONS)}"
        self._online.clear()
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
        client.username_pw_set(self.credentials.username, self.credentials.password)
        client.will_set(self.topic(Leaf.STATUS), self._presence(Presence.OFFLINE), 1, True)
        client.reconnect_delay_set(min_delay=1, max_delay=1)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.connect(self.credentials.mqtt_host, self.credentials.mqtt_port, keepalive=10)
        self._paho = client
        self._worker = threading.Thread(target=self._react, daemon=True)
        self._worker.start()
        client.loop_start()
        assert self._online.wait(10), f"{name} does not get online"
        return self

    def publish(self, leaf: Leaf, payload: bytes) -> None:
        """Send something, as it is."""
        self.publish_raw(self.topic(leaf), payload, is_retained=leaf in RETAINED)

    def publish_raw(self, topic: str, payload: bytes, *, is_retained: bool = False) -> None:
        """Send something anywhere, allowed or not."""
        assert self._paho is not None
        self._paho.publish(topic, payload, 1, is_retained)

    def report(self, report: DeploymentReport | TrialReport) -> None:
        """Send a report, and again at every connect until it is acknowledged."""
        self.outbox[report.report_id] = encode(report)
        self.publish(Leaf.REPORT, self.outbox[report.report_id])

    def fetch(self, manifest: Manifest) -> bytes:
        """Fetch a payload, chunk by chunk, each checked.

        Raises:
            NotHereError: The control plane does not give it.
        """
        wanted = manifest.payload
        digests = wanted.chunk_digests()
        found: dict[int, bytes] = {}
        deadline = time.monotonic() + 30
        while len(found) < wanted.chunk_count and time.monotonic() < deadline:
            missing = [index for index in range(wanted.chunk_count) if index not in found]
            self._get(wanted.sha256, wanted.chunk_bytes, missing[:WINDOW])
            for index, chunk in self._receive(wanted.sha256, len(missing[:WINDOW])):
                if not chunk:
                    raise NotHereError(wanted.sha256)
                if hashlib.sha256(chunk).digest() == digests[index]:
                    found[index] = chunk
        return b"".join(found[index] for index in range(wanted.chunk_count))

    def release(self) -> None:
        """Go on from `hold_at`."""
        self._released.set()

    def close(self) -> None:
        """Disconnect politely."""
        if self._paho is not None:
            self.publish(Leaf.STATUS, self._presence(Presence.OFFLINE))
            self._paho.disconnect()
        self._end()

    def cut_power(self) -> None:
        """Vanish: the socket closes without a goodbye."""
        assert self._paho is not None
        found = self._paho.socket()
        self._paho.loop_stop()
        if found is not None:
            found.close()
        self._end()

    def topic(self, leaf: Leaf) -> str:
        """One of its own topics."""
        return device_topic(self.credentials.site, self.credentials.device, leaf)

    # Reactions

    def _end(self) -> None:
        self._released.set()
        self._work.put(None)
        if self._worker is not None:
            self._worker.join(5)
        if self._paho is not None:
            self._paho.loop_stop()
            self._paho = None

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        site, name = self.credentials.site, self.credentials.device
        for leaf in (Leaf.DESIRED, Leaf.ASK, Leaf.ACK):
            client.subscribe(self.topic(leaf), 1)
        client.subscribe(chunk_filter(site, name), 0)
        self.publish(Leaf.BIRTH, self._birth())
        self.publish(Leaf.STATUS, self._presence(Presence.ONLINE))
        self._send_reported()
        self._send_outbox()
        self._online.set()

    def _send_outbox(self) -> None:
        for payload in list(self.outbox.values()):
            self.publish(Leaf.REPORT, payload)

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        topic = parse_topic(message.topic)
        payload = bytes(message.payload)
        if isinstance(topic, ChunkTopic):
            self._chunks.put((topic, payload))
        elif topic.leaf is Leaf.ACK:
            for report_id in parse_message(Ack, payload).report_ids:
                self.acked.append(report_id)
                self.outbox.pop(report_id, None)
        elif topic.leaf is Leaf.DESIRED:
            desired = parse_message(Desired, payload)
            self.desired.append(desired)
            self._work.put(lambda: self._reconcile(desired))
        elif topic.leaf is Leaf.ASK:
            ask = parse_message(Ask, payload)
            self.asks.append(ask)
            self._work.put(lambda: self._measure(ask))

    def _react(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=RESEND_AFTER_S)
            except queue.Empty:
                self._send_outbox()
                continue
            if work is None:
                return
            try:
                work()
            except NotHereError:
                continue

    def _reconcile(self, desired: Desired) -> None:
        if desired.sequence < self.desired[-1].sequence:
            return
        for name, wanted in desired.models.items():
            ref = read_manifest(wanted.signed).ref()
            if self.active.get(name) == ref or wanted.deployment_id in self.handled:
                continue
            self.handled.add(wanted.deployment_id)
            if self.last_good.get(name) == ref:
                self.active[name] = ref
                self._send_reported()
                continue
            self._deploy(name, wanted, ref)

    def _deploy(self, name: str, wanted: DesiredModel, ref: ArtifactRef) -> None:
        manifest = read_manifest(wanted.signed)
        before = self.active.get(name)
        self._reach(name, wanted, ref, S.FETCHING)
        self.payloads[ref.sha256] = self.fetch(manifest)
        for state in (S.VERIFYING, S.STAGED, S.PROBING):
            self._reach(name, wanted, ref, state)
        if ref.version in self.behaviour.refuses:
            self._reach(name, wanted, ref, S.FAILED, code=ErrorCode.MODEL_GOLDEN)
            return
        self._reach(name, wanted, ref, S.ACTIVATING)
        self.active[name] = ref
        self._reach(name, wanted, ref, S.PROBATION)
        if ref.version in self.behaviour.rolls_back:
            if before is not None:
                self.active[name] = before
            self._reach(name, wanted, ref, S.ROLLED_BACK, code=ErrorCode.MODEL_CRASH)
            return
        if before is not None:
            self.last_good[name] = before
        self._reach(name, wanted, ref, S.COMMITTED)

    def _reach(
        self,
        name: str,
        wanted: DesiredModel,
        ref: ArtifactRef,
        state: DeploymentState,
        *,
        code: ErrorCode | None = None,
    ) -> None:
        if self.behaviour.hold_at is state:
            self._released.wait(30)
        self._status[name] = DeploymentStatus(
            deployment_id=wanted.deployment_id, artifact=ref, state=state
        )
        before = self.last_good.get(name) or self.active.get(name)
        is_probed = state is S.ACTIVATING
        if state is not S.FETCHING:
            self.report(
                DeploymentReport(
                    report_id=f"{self.credentials.device}-{next(self._report_number)}",
                    sent_at=time.time(),
                    deployment_id=wanted.deployment_id,
                    artifact=ref,
                    state=state,
                    error_code=code,
                    detail="as told" if code is not None else "",
                    active=self.active.get(name),
                    measurement=make_measurement(ref) if is_probed else None,
                    incumbent=make_measurement(before) if is_probed and before else None,
                    comparison=(
                        make_comparison(before, self.behaviour.ratio)
                        if is_probed and before
                        else None
                    ),
                )
            )
        self._send_reported()

    def _measure(self, ask: Ask) -> None:
        if ask.trial_id in self.handled:
            return
        self.handled.add(ask.trial_id)
        manifest = read_manifest(ask.signed)
        self.payloads[manifest.payload.sha256] = self.fetch(manifest)
        is_bad = manifest.version in self.behaviour.refuses
        self.report(
            TrialReport(
                report_id=f"{self.credentials.device}-{next(self._report_number)}",
                sent_at=time.time(),
                trial_id=ask.trial_id,
                measurement=None if is_bad else make_measurement(manifest.ref()),
                error_code=ErrorCode.MODEL_LOAD if is_bad else None,
                detail="cannot load" if is_bad else "",
            )
        )

    # Messages

    def _get(self, sha256: str, chunk_bytes: int, indices: list[int]) -> None:
        message = Get(sha256=sha256, chunk_bytes=chunk_bytes, indices=tuple(indices))
        self.publish(Leaf.GET, encode(message))

    def _receive(self, sha256: str, expected: int) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        while len(found) < expected:
            try:
                topic, chunk = self._chunks.get(timeout=CHUNK_TIMEOUT_S)
            except queue.Empty:
                break
            if topic.sha256 == sha256:
                found.append((topic.index, chunk))
        return found

    def _birth(self) -> bytes:
        return encode(
            Birth(
                device_class=self.device_class,
                boot_id="boot",
                session_id=self.session_id,
                agent_version="0",
                fingerprint="0" * 64,
                sent_at=time.time(),
            )
        )

    def _presence(self, presence: Presence) -> bytes:
        return encode(Status(presence=presence, boot_id="boot", session_id=self.session_id))

    def _send_reported(self) -> None:
        names = {*self.active, *self._status}
        models = {
            name: ModelStatus(
                active=self.active.get(name),
                last_good=self.last_good.get(name),
                deployment=self._status.get(name),
            )
            for name in names
        }
        sequence = self.desired[-1].sequence if self.desired else 0
        self.publish(
            Leaf.REPORTED,
            encode(
                Reported(
                    sequence=sequence,
                    boot_id="boot",
                    session_id=self.session_id,
                    models=models,
                    sent_at=time.time(),
                )
            ),
        )
