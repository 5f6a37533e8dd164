"""The agent's wheel on emulated ARM: an update from end to end, a refusal, a measurement.

What an emulator can show is shown: that all parts exist for the architecture, start their children,
compute the golden outputs and say on what they ran. What took how long is not looked at.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import pytest

from support.agent_process import AgentProcess
from support.artifacts import TEST_PRIVATE_KEY, make_manifest
from support.brokers import BrokerProcess
from support.control_plane_stub import QUICK, ControlPlaneStub
from support.tiny_models import make_onnx
from support.tiny_tflite import make_tflite
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import Golden, GoldenVector, ModelFormat, SignedManifest
from trimtab_protocol.measurement import Measurement
from trimtab_protocol.messages import Policy
from trimtab_protocol.signing import sign_manifest
from trimtab_protocol.tensors import pack_tensor

TREES = Path(__file__).resolve().parents[2] / ".arm"
SLOW_S = 150.0
POLICY = Policy(probe=QUICK, probation_s=0.2)
MAKERS = {ModelFormat.ONNX: make_onnx, ModelFormat.TFLITE: make_tflite}


@dataclass(frozen=True)
class Row:
    """One runtime on one architecture."""

    machine: str
    model_format: ModelFormat
    package: str

    @property
    def python(self) -> str:
        path = TREES / self.machine / "python"
        assert path.exists(), f"no {path}: run `make test-arm`, which builds it"
        return str(path)


ROWS = [
    Row("aarch64", ModelFormat.ONNX, "onnxruntime"),
    Row("aarch64", ModelFormat.TFLITE, "ai-edge-litert"),
    Row("armv7l", ModelFormat.TFLITE, "tflite-runtime"),
]


class Site:
    """A broker and a control plane on this machine, and an emulated agent."""

    def __init__(self, row: Row, folder: Path) -> None:
        self.broker = BrokerProcess("mosquitto", folder / "broker")
        self.broker.start()
        self.plane = ControlPlaneStub(self.broker.port)
        self.agent = AgentProcess(folder / "agent", self.broker.port, python=row.python)

    def end(self) -> None:
        self.agent.stop()
        self.plane.close()
        self.broker.stop()
        print(self.agent.log())  # shown when the test failed


@pytest.fixture(params=ROWS, ids=lambda row: f"{row.machine}-{row.package}")
def row(request: pytest.FixtureRequest) -> Row:
    assert isinstance(request.param, Row)
    return request.param


@pytest.fixture
def site(row: Row, tmp_path: Path) -> Iterator[Site]:
    made = Site(row, tmp_path)
    try:
        yield made
    finally:
        made.end()


def make_artifact(
    row: Row, version: int, golden_scale: float = 2.0
) -> tuple[SignedManifest, bytes]:
    """y = 2 x; another `golden_scale` makes the golden vector lie."""
    payload = MAKERS[row.model_format](2.0)
    x = numpy.array([[1, 2, 3, 4]], numpy.float32)
    y = x * numpy.float32(golden_scale)
    vector = GoldenVector(
        inputs={"x": pack_tensor("float32", (1, 4), x.tobytes())},
        outputs={"y": pack_tensor("float32", (1, 4), y.tobytes())},
    )
    manifest = make_manifest("digits", version, payload, model_format=row.model_format)
    golden = Golden(vectors=(vector,), max_abs_error=1e-5)
    return sign_manifest(manifest.model_copy(update={"golden": golden}), TEST_PRIVATE_KEY), payload


def assert_measured_on(row: Row, found: Measurement | None) -> None:
    assert found is not None
    assert found.condition.machine == row.machine
    assert found.condition.runtime_package == row.package
    assert found.condition.python.startswith("3.11.")
    assert found.latency.runs > 0
    cold, memory = found.cold_start, found.memory
    for reading in (
        *(found.latency.p50_ms, found.latency.p90_ms),
        *(cold.spawn_ms, cold.import_ms, cold.load_ms, cold.first_inference_ms),
        *(memory.peak_bytes, memory.baseline_bytes),
    ):
        assert reading.known() > 0
    energy = found.energy.per_inference_mj
    assert energy.value is not None or energy.absent


@pytest.mark.timeout(400)
def test_an_update_is_committed_and_one_whose_golden_vector_lies_is_refused(
    row: Row, site: Site
) -> None:
    site.agent.start()
    site.plane.desire(*make_artifact(row, 1), policy=POLICY)
    report = site.plane.wait_for_state(DeploymentState.COMMITTED, timeout_s=SLOW_S)
    assert_measured_on(row, report.measurement)
    assert site.plane.births[-1].machine == row.machine
    assert row.package in {fact.package for fact in site.plane.births[-1].runtimes}

    lie = make_artifact(row, 2, golden_scale=3.0)
    site.plane.desire(*lie, deployment_id="d2", policy=POLICY)
    refused = site.plane.wait_for_state(DeploymentState.FAILED, "d2", timeout_s=SLOW_S)
    assert refused.error_code is ErrorCode.MODEL_GOLDEN
    active = site.agent.active()
    assert active is not None
    assert str(active.ref) == "digits@1"
    assert site.agent.stop() == 0


@pytest.mark.timeout(400)
def test_a_measurement_by_hand_is_a_whole_record(row: Row, tmp_path: Path) -> None:
    model = tmp_path / f"digits.{row.model_format.value}"
    model.write_bytes(MAKERS[row.model_format](2.0))
    command = [row.python, "-m", "trimtab_agent.cli", "measure", str(model), "--json"]
    done = subprocess.run(
        [*command, "--processes", "1", "--seconds", "0.2"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = Measurement.model_validate_json(done.stdout)
    assert_measured_on(row, found)
    assert found.artifact.name == "digits"
    assert found.size_bytes == model.stat().st_size
