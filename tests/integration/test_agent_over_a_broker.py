"""A real agent process against a real broker: delivery, refusal, measuring, reporting."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.agent_process import DEVICE_CLASS, AgentProcess
from support.brokers import BrokerProcess, find_mosquitto
from support.control_plane_stub import QUICK, QUICK_POLICY, ControlPlaneStub
from support.factories import STRANGER_KEY
from support.tiny_models import make_real_artifact
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.messages import Policy, Presence
from trimtab_protocol.topics import Leaf

BROKERS = [
    pytest.param(
        "mosquitto",
        marks=[
            pytest.mark.mosquitto,
            pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto on this machine"),
        ],
    ),
    "amqtt",
]


class Site:
    """A broker, a control plane and one agent."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.broker = BrokerProcess(kind, folder / "broker")
        self.broker.start()
        self.plane = ControlPlaneStub(self.broker.port)
        self.agent = AgentProcess(folder / "agent", self.broker.port, MQTT)

    def end(self) -> None:
        self.agent.stop()
        self.plane.close()
        self.broker.stop()


MQTT = "[mqtt]\nreconnect_min_s = 1\nreconnect_max_s = 1\n[fetch]\nchunk_timeout_s = 1.0\n"


@pytest.fixture(params=BROKERS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    made = Site(request.param, tmp_path)
    try:
        yield made
    finally:
        made.end()


def test_an_artifact_arrives_is_probed_and_committed(site: Site) -> None:
    site.agent.start()
    site.plane.desire(*make_real_artifact(1))
    report = site.plane.wait_for_state(DeploymentState.COMMITTED)
    assert report.measurement is not None
    assert report.measurement.latency.p90_ms.value is not None
    slot = site.agent.active()
    assert slot is not None
    assert str(slot.ref) == "digits@1"
    site.plane.wait_for("birth", lambda: bool(site.plane.births))
    assert site.plane.births[-1].device_class == DEVICE_CLASS


@pytest.mark.mosquitto
@pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto on this machine")
def test_an_agent_that_is_told_to_speaks_mqtt_5_with_a_session_that_outlives_it(
    tmp_path: Path,
) -> None:
    """[P-2.6]: what is sent while the device is away waits for it, by the session's expiry."""
    broker = BrokerProcess("mosquitto", tmp_path / "broker")
    broker.start()
    plane = ControlPlaneStub(broker.port)
    agent = AgentProcess(
        tmp_path / "agent", broker.port, MQTT.replace("[mqtt]", '[mqtt]\nprotocol = "5"')
    )
    try:
        agent.start()
        plane.wait_for("birth", lambda: bool(plane.births))
        agent.kill()
        plane.ask(*make_real_artifact(1))  # not retained: only the kept session can deliver it
        agent.start()
        assert plane.wait_for_trial().measurement is not None
    finally:
        agent.stop()
        plane.close()
        broker.stop()


def test_an_orderly_end_says_offline_and_exits_with_0(site: Site) -> None:
    site.agent.start()
    site.plane.wait_for("birth", lambda: bool(site.plane.births))
    assert site.agent.stop() == 0
    site.plane.wait_for(
        "offline",
        lambda: bool(site.plane.statuses) and site.plane.statuses[-1].presence is Presence.OFFLINE,
    )


def test_a_killed_agent_is_said_to_be_offline_by_its_will(site: Site) -> None:
    site.agent.start()
    site.plane.wait_for("birth", lambda: bool(site.plane.births))
    site.agent.kill()
    site.plane.wait_for(
        "offline",
        lambda: bool(site.plane.statuses) and site.plane.statuses[-1].presence is Presence.OFFLINE,
    )


def test_kill_9_at_ten_random_instants_of_a_download_costs_no_chunk_twice(site: Site) -> None:
    seed = 20261124
    generator = random.Random(seed)
    signed, payload = make_real_artifact(1, padding_bytes=4_000_000, chunk_bytes=16 * 1024)
    chunk_count = -(-len(payload) // (16 * 1024))
    site.plane.chunk_delay_s = 0.004
    site.plane.desire(signed, payload)
    part = site.agent.folder / "state" / "payloads"
    for number in range(10):
        have = whole_chunks(part, payload)
        site.plane.requested.clear()
        site.agent.start()
        site.plane.wait_for("a request", lambda: bool(site.plane.requested))
        time.sleep(generator.uniform(0.0, 0.12))
        site.agent.kill()
        time.sleep(0.2)  # what the stub still had to send for the dead session is gone
        asked = set(site.plane.requested)
        assert not asked & have, (
            f"seed {seed}, kill {number}: asked again for {sorted(asked & have)}"
        )
        assert len(have) < chunk_count
    have = whole_chunks(part, payload)
    assert have, "ten kills, and nothing had arrived"
    site.plane.requested.clear()
    site.plane.chunk_delay_s = 0.0
    site.agent.start()
    site.plane.wait_for_state(DeploymentState.COMMITTED)
    assert not set(site.plane.requested) & have
    assert site.agent.active() is not None


def whole_chunks(folder: Path, payload: bytes, chunk_bytes: int = 16 * 1024) -> set[int]:
    """Indices of the chunks that are whole in the part file."""
    parts = list(folder.glob("*.part")) if folder.is_dir() else []
    if not parts:
        return set()
    content = parts[0].read_bytes()
    starts = range(0, len(payload), chunk_bytes)
    return {
        start // chunk_bytes
        for start in starts
        if content[start : start + chunk_bytes] == payload[start : start + chunk_bytes]
    }


@pytest.mark.parametrize("is_forgetful", [False, True], ids=["orderly", "crashed-and-forgot"])
def test_a_restart_of_the_broker_in_mid_download_is_survived(
    site: Site, is_forgetful: bool
) -> None:
    site.plane.chunk_delay_s = 0.004
    site.agent.start()
    site.plane.desire(*make_real_artifact(1, padding_bytes=4_000_000, chunk_bytes=16 * 1024))
    site.plane.wait_for("a third of it", lambda: len(site.plane.requested) > 80)
    before = len(site.plane.requested)
    if is_forgetful:
        site.broker.crash_and_forget()
    site.broker.restart()
    site.plane.wait_for_state(DeploymentState.COMMITTED)
    assert before < 245 <= len(site.plane.requested)
    assert len(site.plane.requested) < 245 + 80, "the restart must not begin the download anew"


def flip_a_byte(index: int, chunk: bytes) -> bytes:
    return bytes([chunk[0] ^ 1]) + chunk[1:] if index == 1 else chunk


def cut_the_end(index: int, chunk: bytes) -> bytes:
    return chunk[:-1] if index == 1 else chunk


@pytest.mark.parametrize(
    ("tamper", "code"),
    [(flip_a_byte, ErrorCode.TRUST_CHUNK_DIGEST), (cut_the_end, ErrorCode.TRUST_PAYLOAD_LENGTH)],
)
def test_a_damaged_payload_is_refused_with_its_own_code_and_never_active(
    site: Site, tamper: object, code: ErrorCode
) -> None:
    site.agent.start()
    site.plane.desire(*make_real_artifact(1), deployment_id="good")
    site.plane.wait_for_state(DeploymentState.COMMITTED, "good")
    site.plane.tamper = tamper  # type: ignore[assignment]
    site.plane.desire(
        *make_real_artifact(2, padding_bytes=3000, chunk_bytes=1024), deployment_id="bad"
    )
    report = site.plane.wait_for_state(DeploymentState.FAILED, "bad")
    assert report.error_code is code
    slot = site.agent.active()
    assert slot is not None
    assert str(slot.ref) == "digits@1"


def test_each_manifest_that_must_not_run_here_has_its_own_code(site: Site) -> None:
    site.agent.start()
    site.plane.desire(*make_real_artifact(5), deployment_id="good")
    site.plane.wait_for_state(DeploymentState.COMMITTED, "good")
    signed, payload = make_real_artifact(7, scale=3.0)
    forged = signed.model_copy(
        update={"manifest_json": signed.manifest_json.replace('"version":7', '"version":8')}
    )
    stranger = make_real_artifact(9, private_key=STRANGER_KEY)
    older = make_real_artifact(4, scale=3.0)
    elsewhere = make_real_artifact(9, scale=3.0, device_classes=("another-board",))
    lying = make_real_artifact(9, scale=3.0, golden_scale=4.0)
    slower = make_real_artifact(9, scale=2.5, layers=200)
    rows = [
        ("forged", (forged, payload), ErrorCode.TRUST_SIGNATURE),
        ("stranger", stranger, ErrorCode.TRUST_KEY),
        ("older", older, ErrorCode.TRUST_VERSION),
        ("elsewhere", elsewhere, ErrorCode.REJECTED_DEVICE_CLASS),
        ("lying", lying, ErrorCode.MODEL_GOLDEN),
        ("slower", slower, ErrorCode.REJECTED_SLOWER),
    ]
    policy = QUICK_POLICY.model_copy(update={"max_p90_ratio": 1.5})
    for deployment_id, (manifest, content), code in rows:
        site.plane.desire(manifest, content, deployment_id=deployment_id, policy=policy)
        report = site.plane.wait_for_state(DeploymentState.FAILED, deployment_id)
        assert (deployment_id, report.error_code) == (deployment_id, code), report.detail
        slot = site.agent.active()
        assert slot is not None
        assert str(slot.ref) == "digits@5"


def test_a_trial_measures_without_activating(site: Site) -> None:
    site.agent.start()
    site.plane.wait_for("birth", lambda: bool(site.plane.births))
    spec = QUICK.model_copy(update={"processes": 2})
    site.plane.ask(*make_real_artifact(1), spec=spec)
    report = site.plane.wait_for_trial()
    assert report.measurement is not None, report.detail
    assert report.measurement.latency.processes == 2
    assert report.measurement.memory.peak_bytes.value is not None
    assert site.agent.active() is None


def test_a_report_made_while_the_broker_was_down_arrives_later_and_once(site: Site) -> None:
    site.agent.start()
    policy = Policy(probe=QUICK, probation_s=3.0)
    site.plane.desire(*make_real_artifact(1), policy=policy)
    site.plane.wait_for_state(DeploymentState.PROBATION)
    site.broker.stop()
    until = time.monotonic() + 30
    while "d1.committed" not in waiting_reports(site) and time.monotonic() < until:
        time.sleep(0.1)
    assert "d1.committed" in waiting_reports(site)
    assert "d1.committed" not in site.plane.reports
    site.broker.start()
    site.plane.wait_for_state(DeploymentState.COMMITTED)
    time.sleep(1.5)
    assert site.plane.report_arrivals.count("d1.committed") == 1
    assert waiting_reports(site) == []


def waiting_reports(site: Site) -> list[str]:
    folder = site.agent.folder / "state" / "outbox"
    return [path.name[11:-5] for path in sorted(folder.glob("[0-9]*.json"))]


def test_a_report_is_repeated_until_it_is_acknowledged_even_by_a_new_process(site: Site) -> None:
    site.plane.is_acknowledging = False
    site.agent.start()
    site.plane.wait_for("birth", lambda: bool(site.plane.births))
    site.plane.ask(*make_real_artifact(1))
    site.plane.wait_for_trial()
    site.agent.kill()
    arrived = site.plane.report_arrivals.count("t1.trial")
    site.plane.is_acknowledging = True
    site.agent.start()
    site.plane.wait_for(
        "the repeat", lambda: site.plane.report_arrivals.count("t1.trial") > arrived
    )
    until = time.monotonic() + 10
    while waiting_reports(site) and time.monotonic() < until:
        time.sleep(0.1)
    assert waiting_reports(site) == []


def test_malformed_messages_are_dropped_counted_and_reported_once(site: Site) -> None:
    site.agent.start()
    site.plane.wait_for("birth", lambda: bool(site.plane.births))
    for payload in (b"not json", b"{}", b"\xff\xfe", b'{"sequence": -1}'):
        site.plane.send_raw(Leaf.DESIRED, payload)
        site.plane.send_raw(Leaf.ASK, payload)
    site.plane.desire(*make_real_artifact(1))
    site.plane.wait_for_state(DeploymentState.COMMITTED)
    dropped = [key for key in site.plane.reports if ".dropped." in key]
    assert len(dropped) == 1


def test_a_second_agent_on_the_same_folder_is_refused(site: Site) -> None:
    site.agent.start()
    site.plane.wait_for("birth", lambda: bool(site.plane.births))
    second = AgentProcess(site.agent.folder, site.broker.port)
    second.start()
    assert second.wait(20) == 2
    assert "[config.in_use]" in second.log()


def test_the_resident_process_has_neither_numpy_nor_a_runtime_loaded(site: Site) -> None:
    site.agent.start()
    site.plane.desire(*make_real_artifact(1))
    site.plane.wait_for_state(DeploymentState.COMMITTED)
    maps = Path(f"/proc/{site.agent.pid}/maps").read_text()
    for library in ("numpy", "onnxruntime", "litert", "tflite", "torch"):
        assert library not in maps
    assert "pydantic_core" in maps, "the maps show which libraries are loaded"
