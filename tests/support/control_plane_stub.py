"""The control plane's side of the contract for one device, small and bendable: it sees every
request and can send what a real one never would.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import SignedManifest
from trimtab_protocol.measurement import MeasureSpec
from trimtab_protocol.messages import (
    Ack,
    Ask,
    Birth,
    DeploymentReport,
    Desired,
    DesiredModel,
    EventReport,
    Get,
    Policy,
    Reported,
    Status,
    TrialReport,
    encode,
    parse_message,
    parse_report,
)
from trimtab_protocol.signing import read_manifest
from trimtab_protocol.topics import DeviceTopic, Leaf, chunk_topic, device_topic, parse_topic

SITE, DEVICE = "test", "device-1"
QUICK = MeasureSpec(processes=1, min_runs=64, min_steady_s=0.0, warm_up_s=0.0)
QUICK_POLICY = Policy(probe=QUICK, probation_s=0.2)


class ControlPlaneStub:
    """Serves one device over a real broker."""

    def __init__(self, port: int, *, chunk_qos: int = 0, chunk_delay_s: float = 0.0) -> None:
        self.payloads: dict[str, bytes] = {}
        self.requested: list[int] = []
        self.reports: dict[str, DeploymentReport | TrialReport | EventReport] = {}
        self.report_arrivals: list[str] = []
        self.births: list[Birth] = []
        self.statuses: list[Status] = []
        self.reported: Reported | None = None
        self.tamper: Callable[[int, bytes], bytes] = lambda _index, chunk: chunk
        self.is_acknowledging = True
        self.chunk_delay_s = chunk_delay_s
        self._chunk_qos = chunk_qos
        self._sequence = itertools.count(int(time.time()))
        self._changed = threading.Condition()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="stub", clean_session=False
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.max_queued_messages_set(0)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_socket_open = _set_nodelay
        self._client.connect("127.0.0.1", port, 10)
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def desire(
        self,
        signed: SignedManifest,
        payload: bytes,
        *,
        deployment_id: str = "d1",
        policy: Policy = QUICK_POLICY,
    ) -> None:
        """Publish a desired state with one model."""
        manifest = read_manifest(signed)
        self.payloads[manifest.payload.sha256] = payload
        model = DesiredModel(deployment_id=deployment_id, signed=signed, policy=policy)
        desired = Desired(sequence=next(self._sequence), models={manifest.name: model})
        self._publish(Leaf.DESIRED, encode(desired), retain=True)

    def ask(
        self,
        signed: SignedManifest,
        payload: bytes,
        *,
        trial_id: str = "t1",
        spec: MeasureSpec = QUICK,
    ) -> None:
        """Ask for a trial."""
        self.payloads[read_manifest(signed).payload.sha256] = payload
        ask = Ask(trial_id=trial_id, signed=signed, spec=spec, expires_at=time.time() + 600)
        self._publish(Leaf.ASK, encode(ask))

    def send_raw(self, leaf: Leaf, payload: bytes) -> None:
        """Send anything at all."""
        self._publish(leaf, payload)

    def wait_for(self, what: str, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Block until a condition over this object's fields holds."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout_s):
                raise AssertionError(
                    f"waited {timeout_s:.0f} s for {what}; reports: {self.states()}"
                )

    def wait_for_state(
        self, state: DeploymentState, deployment_id: str = "d1", timeout_s: float = 60.0
    ) -> DeploymentReport:
        """Block until a deployment has reported a state."""
        key = f"{deployment_id}.{state.value}"
        self.wait_for(
            f"{deployment_id} to be {state.value}", lambda: key in self.reports, timeout_s
        )
        report = self.reports[key]
        assert isinstance(report, DeploymentReport)
        return report

    def wait_for_trial(self, trial_id: str = "t1", timeout_s: float = 60.0) -> TrialReport:
        """Block until a trial has been reported."""
        key = f"{trial_id}.trial"
        self.wait_for(f"trial {trial_id}", lambda: key in self.reports, timeout_s)
        report = self.reports[key]
        assert isinstance(report, TrialReport)
        return report

    def states(self) -> list[tuple[str, ErrorCode | None]]:
        """(report id, error code) of all that has been reported."""
        return [(key, report.error_code) for key, report in self.reports.items()]

    def _publish(self, leaf: Leaf, payload: bytes, *, retain: bool = False) -> None:
        self._client.publish(device_topic(SITE, DEVICE, leaf), payload, qos=1, retain=retain)

    def _on_connect(self, client: paho.Client, *_rest: object) -> None:
        client.subscribe([
            (device_topic(SITE, DEVICE, leaf), 1)
            for leaf in (Leaf.BIRTH, Leaf.STATUS, Leaf.REPORTED, Leaf.REPORT, Leaf.GET)
        ])  # fmt: skip

    def _on_message(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        topic = parse_topic(message.topic)
        assert isinstance(topic, DeviceTopic)
        with self._changed:
            self._take(topic.leaf, bytes(message.payload))
            self._changed.notify_all()

    def _take(self, leaf: Leaf, payload: bytes) -> None:
        if leaf is Leaf.GET:
            self._serve(parse_message(Get, payload))
        elif leaf is Leaf.REPORT:
            report = parse_report(payload)
            self.reports.setdefault(report.report_id, report)
            self.report_arrivals.append(report.report_id)
            if self.is_acknowledging:
                self._publish(Leaf.ACK, encode(Ack(report_ids=(report.report_id,))))
        elif leaf is Leaf.BIRTH:
            self.births.append(parse_message(Birth, payload))
        elif leaf is Leaf.STATUS:
            self.statuses.append(parse_message(Status, payload))
        elif leaf is Leaf.REPORTED:
            self.reported = parse_message(Reported, payload)

    def _serve(self, get: Get) -> None:
        content = self.payloads.get(get.sha256, b"")
        for index in get.indices:
            self.requested.append(index)
            start = index * get.chunk_bytes
            chunk = self.tamper(index, content[start : start + get.chunk_bytes])
            topic = chunk_topic(SITE, DEVICE, get.sha256, index)
            if self.chunk_delay_s:
                time.sleep(self.chunk_delay_s)
            self._client.publish(topic, chunk, qos=self._chunk_qos)


def _set_nodelay(_client: object, _userdata: object, sock: object) -> None:
    import socket  # noqa: PLC0415

    assert isinstance(sock, socket.socket)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
