"""Real agent, real broker, real curl, and the example application whose model is swapped under it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.agent_process import AgentProcess
from support.application_process import ApplicationProcess, Askers
from support.brokers import BrokerProcess, find_mosquitto
from support.control_plane_stub import QUICK, ControlPlaneStub
from support.tiny_models import make_real_artifact
from trimtab_agent.client import Client
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.messages import Policy

S = DeploymentState
SETTINGS = """\
[mqtt]
reconnect_min_s = 1
reconnect_max_s = 1
[local]
socket = "api.sock"
max_hold_minutes = 5
"""
LONG_PROBATION = Policy(probe=QUICK, probation_s=120.0)

pytestmark = [
    pytest.mark.mosquitto,
    pytest.mark.skipif(find_mosquitto() is None, reason="no mosquitto on this machine"),
]


class Site:
    """A broker, a control plane, an agent with its socket, and the applications that were started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = BrokerProcess("mosquitto", folder / "broker")
        self.broker.start()
        self.plane = ControlPlaneStub(self.broker.port)
        self.agent = AgentProcess(folder / "agent", self.broker.port, SETTINGS)
        self.socket = folder / "agent" / "api.sock"
        self.client = Client(self.socket, "test")
        self.applications: list[ApplicationProcess] = []
        self.askers: list[Askers] = []

    def deploy(self, version: int, *, policy: Policy, layers: int = 0) -> None:
        artifact = make_real_artifact(version, scale=float(version), layers=layers)
        self.plane.desire(*artifact, deployment_id=f"d{version}", policy=policy)

    def start_with_version_1(self) -> None:
        self.agent.start()
        self.deploy(1, policy=Policy(probe=QUICK, probation_s=0.1))
        self.plane.wait_for_state(S.COMMITTED, "d1")

    def start_application(self) -> tuple[ApplicationProcess, Askers]:
        application = ApplicationProcess(self.folder, self.socket)
        self.applications.append(application)
        application.wait_until_serves(1)
        askers = Askers(application.port)
        self.askers.append(askers)
        askers.wait_for_answers(1, 300)
        return application, askers

    def wait_until_heard(self, *, inferences: int) -> None:
        """The agent knows enough of the application."""
        until_s = time.monotonic() + 30
        while True:
            use = self.curl("/v1/models/digits")["applications"].get("camera", {})
            if use.get("heartbeat_ago_s") is not None and use["inferences"] >= inferences:
                return
            assert time.monotonic() < until_s, use
            time.sleep(0.05)

    def curl(self, target: str, *options: str) -> Any:
        done = subprocess.run(
            ["curl", "-sS", "--unix-socket", str(self.socket), *options,
             f"http://localhost{target}"],
            capture_output=True, check=True, timeout=60,
        )  # fmt: skip
        return json.loads(done.stdout)

    def end(self) -> None:
        for asker in self.askers:
            asker.stop()
        for application in self.applications:
            application.stop()
        self.agent.stop()
        self.plane.close()
        self.broker.stop()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    try:
        yield made
    finally:
        made.end()


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")


@needs_curl
def test_with_curl_one_sees_the_model_holds_updates_and_hears_of_the_change(site: Site) -> None:
    """[P-5.13]"""
    site.start_with_version_1()
    found = site.curl("/v1/models/digits")
    assert found["active"]["artifact"] == "digits@1"
    assert (
        Path(found["active"]["path"]).read_bytes()
        == Path(found["active"]["slot_path"]).read_bytes()
    )
    hold = ["-X", "PUT", "-d", '{"minutes": 5, "holder": "camera"}']
    assert site.curl("/v1/models/digits/hold", *hold) == {"holder": "camera", "held_for_s": 300}
    site.deploy(2, policy=Policy(probe=QUICK, probation_s=0.1))
    site.plane.wait_for_state(S.STAGED, "d2")
    site.plane.wait_for("the reason why it waits", lambda: "holds updates" in why(site))
    assert site.curl("/v1/models/digits")["active"]["version"] == 1
    change = site.curl("/v1/models")["change"]
    site.curl("/v1/models/digits/hold?holder=camera", "-X", "DELETE")
    while found["active"]["version"] == 1:
        news = site.curl(f"/v1/changes?since={change}&timeout_s=60")
        assert news["change"] != change, "a minute, and nothing happened"
        change, found = news["change"], news["models"][0]
    site.plane.wait_for_state(S.COMMITTED, "d2")


@needs_curl
def test_what_the_document_types_works(site: Site) -> None:
    site.start_with_version_1()
    text = (Path(__file__).resolve().parents[2] / "docs" / "local-api.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    script = "".join(block for block in blocks if "curl" in block)
    assert script.count("curl ") >= 9
    script = script.replace("/run/trimtab/api.sock", str(site.socket))
    script = script.replace("curl -sS", "curl -sS --fail-with-body")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    use = site.curl("/v1/models/digits")["applications"]["camera"]
    assert (use["starts"], use["inferences"]) == (1, 3)
    assert use["heartbeat_ago_s"] is not None


def why(site: Site) -> str:
    model = site.plane.reported.models.get("digits") if site.plane.reported else None
    return model.deployment.detail if model is not None and model.deployment is not None else ""


@needs_curl
def test_an_application_serves_on_while_its_model_is_swapped_under_it(site: Site) -> None:
    site.start_with_version_1()
    _, askers = site.start_application()
    site.wait_until_heard(inferences=100)
    policy = Policy(probe=QUICK, probation_s=1.0, heartbeat_timeout_s=30.0)
    site.deploy(2, policy=policy)
    site.plane.wait_for_state(S.COMMITTED, "d2")
    askers.wait_for_answers(2, 100)
    askers.stop()
    assert askers.failures == []
    versions = [version for version, _ in sorted(askers.answers)]
    assert set(askers.answers) == {(1, 1.0), (2, 2.0)}, "each answer is of the version it names"
    assert versions.count(1) >= 300


@needs_curl
def test_an_application_that_hangs_with_the_new_model_gets_the_old_one_back(site: Site) -> None:
    """[P-5.14]"""
    site.start_with_version_1()
    application, askers = site.start_application()
    site.wait_until_heard(inferences=100)
    site.deploy(2, policy=LONG_PROBATION.model_copy(update={"heartbeat_timeout_s": 8.0}))
    application.wait_until_serves(2)
    requested = len(site.plane.requested)
    application.hang()
    report = site.plane.wait_for_state(S.ROLLED_BACK, "d2")
    assert report.error_code is ErrorCode.MODEL_HEARTBEAT
    assert "camera" in report.detail
    assert str(report.active) == "digits@1"
    assert len(site.plane.requested) == requested, "nothing is fetched to go back"
    before = len(askers.answers)
    application.wake()
    until_s = time.monotonic() + 30
    while (1, 1.0) not in askers.answers[before:]:
        assert time.monotonic() < until_s
        time.sleep(0.05)
    askers.stop()
    assert askers.failures == []


@needs_curl
def test_an_application_that_finds_the_new_model_slow_gets_the_old_one_back(site: Site) -> None:
    """[P-5.15]"""
    site.start_with_version_1()
    _, askers = site.start_application()
    site.wait_until_heard(inferences=300)
    policy = LONG_PROBATION.model_copy(update={"max_app_p90_ratio": 3.0})
    site.deploy(2, policy=policy, layers=300)
    report = site.plane.wait_for_state(S.ROLLED_BACK, "d2")
    assert report.error_code is ErrorCode.MODEL_SLOW_IN_USE
    askers.stop()
    assert askers.failures == []


def test_an_application_serves_on_over_a_kill_of_the_agent_and_follows_the_next_one(
    site: Site,
) -> None:
    site.start_with_version_1()
    application, askers = site.start_application()
    site.agent.kill()
    answered = len(askers.answers)
    askers.wait_for_answers(1, answered + 100)
    site.agent.start()
    site.deploy(2, policy=LONG_PROBATION)
    application.wait_until_serves(2)
    askers.wait_for_answers(2, 100)
    askers.stop()
    assert askers.failures == []


def test_the_client_holds_within_a_block_and_follows_changes(site: Site) -> None:
    site.start_with_version_1()
    changes = site.client.watch()
    assert next(changes)["digits"].version == 1
    model = site.client.model("digits")
    assert model is not None
    assert (model.name, model.version, model.runtime) == ("digits", 1, "onnxruntime")
    with site.client.hold("digits", minutes=1) as held_s:
        assert held_s == 60
        site.deploy(2, policy=LONG_PROBATION)
        site.plane.wait_for_state(S.STAGED, "d2")
        assert site.client.models()["digits"].version == 1
    while next(changes)["digits"].version == 1:
        pass
    assert not site.client.heartbeat("digits", model.sha256), "another one is active now"
