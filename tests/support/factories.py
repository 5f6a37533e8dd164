"""Small builders: one valid example of each thing, with the fields that a test cares about as arguments.

Deterministic: the same call gives the same bytes. Keys are fixed and worthless outside tests.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from trimtab_protocol.budget import Budget, Metric
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import (
    RUNTIME_FOR,
    ArtifactRef,
    Golden,
    GoldenVector,
    IoSpec,
    Lineage,
    Manifest,
    ModelFormat,
    Quality,
    Requirements,
    RuntimeName,
    SignedManifest,
    TensorSpec,
    describe_payload,
)
from trimtab_protocol.measurement import (
    ColdStart,
    Comparison,
    Condition,
    Energy,
    Latency,
    Measurement,
    MeasureSpec,
    Memory,
    Stability,
    WarmUp,
)
from trimtab_protocol.messages import (
    Ask,
    Birth,
    DeploymentReport,
    Desired,
    DesiredModel,
    EventReport,
    Get,
    Policy,
    Presence,
    Reported,
    RuntimeFact,
    Status,
    TrialReport,
)
from trimtab_protocol.reading import Reading, absent, known
from trimtab_protocol.signing import key_id_of, public_key_of, sign_manifest
from trimtab_protocol.tensors import pack_tensor

OWNER_KEY = bytes(range(32))
"""Private key of the fleet's owner."""

STRANGER_KEY = bytes(range(32, 64))
"""Private key of somebody whom no device trusts."""

DEVICE_CLASS = "pi4-4gb-ort1.23-t4"
PAYLOAD = bytes(index * 37 % 251 for index in range(2500))
"""Stands for a model file: three chunks of 1024 bytes, the last one shorter."""

NOW = 1_750_000_000.0
"""An arbitrary instant, in seconds since 1970."""


def trusting(*private_keys: bytes) -> dict[str, bytes]:
    """The trusted keys of a device that trusts these owners."""
    publics = [public_key_of(private_key) for private_key in private_keys]
    return {key_id_of(public): public for public in publics}


def a_golden() -> Golden:
    """One golden vector for an input `x` and an output `y` of four floats."""
    vector = GoldenVector(
        inputs={"x": pack_tensor("float32", (1, 4), struct.pack("<4f", 0, 1, 2, 3))},
        outputs={"y": pack_tensor("float32", (1, 4), struct.pack("<4f", 3, 2, 1, 0))},
    )
    return Golden(vectors=(vector,), max_abs_error=1e-3)


def a_manifest(
    *,
    name: str = "digits",
    version: int = 1,
    payload: bytes = PAYLOAD,
    chunk_bytes: int = 1024,
    model_format: ModelFormat = ModelFormat.ONNX,
    device_classes: tuple[str, ...] = (),
    budgets: Mapping[str, Budget] | None = None,
    quality: Quality | None = None,
) -> Manifest:
    """A manifest of `payload`, with inputs and outputs as in `a_golden`."""
    return Manifest(
        name=name,
        version=version,
        io=IoSpec(
            inputs=(TensorSpec(name="x", dtype="float32", shape=(None, 4)),),
            outputs=(TensorSpec(name="y", dtype="float32", shape=(None, 4)),),
        ),
        payload=describe_payload(payload, model_format, chunk_bytes),
        lineage=Lineage(recipe="static_w8a8"),
        quality=quality,
        requirements=Requirements(runtime=RUNTIME_FOR[model_format], device_classes=device_classes),
        golden=a_golden(),
        budgets=dict(budgets or {}),
    )


def a_signed_manifest(
    manifest: Manifest | None = None, private_key: bytes = OWNER_KEY
) -> SignedManifest:
    """A manifest with one signature, by the owner unless told otherwise."""
    return sign_manifest(manifest if manifest is not None else a_manifest(), private_key)


def a_ref(name: str = "digits", version: int = 1) -> ArtifactRef:
    """The reference of `a_manifest`."""
    return a_manifest(name=name, version=version).ref()


def a_budget(**limits: float) -> Budget:
    """A budget by metric name: `a_budget(p90_ms=20.0)`."""
    return Budget(limits={Metric(name): limit for name, limit in limits.items()})


def a_condition(device_class: str = DEVICE_CLASS) -> Condition:
    """The condition under which a measurement was taken."""
    return Condition(
        device_class=device_class,
        runtime=RuntimeName.ONNXRUNTIME,
        runtime_version="1.23.0",
        threads=4,
    )


def a_measurement(
    *,
    artifact: ArtifactRef | None = None,
    device_class: str = DEVICE_CLASS,
    p50_ms: Reading | None = None,
    p90_ms: Reading | None = None,
    peak_bytes: Reading | None = None,
    energy_mj: Reading | None = None,
    stability: Stability = Stability.STABLE,
    size_bytes: int = len(PAYLOAD),
) -> Measurement:
    """What a device found: 1,000 runs, p50 10 ms, p90 12 ms, no energy sensor."""
    return Measurement(
        measurement_id="m-1",
        artifact=artifact or a_ref(),
        size_bytes=size_bytes,
        condition=a_condition(device_class),
        spec=MeasureSpec(),
        cold_start=ColdStart(
            spawn_ms=known(40.0),
            import_ms=known(300.0),
            load_ms=known(25.0),
            first_inference_ms=known(30.0),
        ),
        warm_up=WarmUp(runs=100, duration_s=1.0, is_converged=True),
        latency=Latency(
            processes=5,
            runs=1000,
            p50_ms=p50_ms or known(10.0, 9.5, 10.5),
            p90_ms=p90_ms or known(12.0, 11.5, 12.5),
            p95_ms=known(13.0, 12.5, 13.5),
            p99_ms=known(15.0, 14.0, 16.0),
            max_ms=known(20.0),
            cpu_ms=known(35.0),
        ),
        memory=Memory(
            peak_bytes=peak_bytes or known(60_000_000.0),
            load_peak_bytes=known(58_000_000.0),
            baseline_bytes=known(45_000_000.0),
            over_baseline_bytes=known(15_000_000.0),
        ),
        energy=Energy(per_inference_mj=energy_mj or absent("no power sensor")),
        stability=stability,
        started_at=NOW,
        duration_s=30.0,
    )


def a_comparison(p90_ratio: Reading | None = None) -> Comparison:
    """Candidate against version 1: about a fifth faster unless told otherwise."""
    return Comparison(
        incumbent=a_ref(version=1),
        p50_ratio=known(0.8, 0.78, 0.82),
        p90_ratio=p90_ratio or known(0.8, 0.77, 0.83),
    )


def a_birth(device_class: str = DEVICE_CLASS, session_id: str = "session-1") -> Birth:
    """A device says what it is."""
    return Birth(
        device_class=device_class,
        boot_id="boot-1",
        session_id=session_id,
        agent_version="0.1.0",
        fingerprint="ab" * 32,
        board="Raspberry Pi 4 Model B Rev 1.4",
        cores=4,
        threads=4,
        runtimes=(RuntimeFact(name=RuntimeName.ONNXRUNTIME, version="1.23.0"),),
        sent_at=NOW,
    )


def a_status(presence: Presence = Presence.ONLINE, session_id: str = "session-1") -> Status:
    """A device is there, or is not."""
    return Status(presence=presence, boot_id="boot-1", session_id=session_id)


def a_desired(
    *,
    sequence: int = 1,
    deployment_id: str = "deployment-1",
    signed: SignedManifest | None = None,
    policy: Policy | None = None,
) -> Desired:
    """One model that a device should reach."""
    model = DesiredModel(
        deployment_id=deployment_id,
        signed=signed or a_signed_manifest(),
        policy=policy or Policy(),
    )
    return Desired(sequence=sequence, models={"digits": model})


def a_reported(sequence: int = 1) -> Reported:
    """A device that runs nothing yet."""
    return Reported(sequence=sequence, boot_id="boot-1", session_id="session-1", sent_at=NOW)


def an_ask(trial_id: str = "trial-1", signed: SignedManifest | None = None) -> Ask:
    """A trial."""
    return Ask(trial_id=trial_id, signed=signed or a_signed_manifest(), expires_at=NOW + 600)


def a_trial_report(
    *,
    report_id: str = "report-1",
    trial_id: str = "trial-1",
    measurement: Measurement | None = None,
) -> TrialReport:
    """The answer to `an_ask`."""
    return TrialReport(
        report_id=report_id,
        sent_at=NOW,
        trial_id=trial_id,
        measurement=measurement or a_measurement(),
    )


def a_deployment_report(
    *,
    report_id: str = "report-1",
    deployment_id: str = "deployment-1",
    state: DeploymentState = DeploymentState.COMMITTED,
    error_code: ErrorCode | None = None,
) -> DeploymentReport:
    """A deployment reached a state."""
    return DeploymentReport(
        report_id=report_id,
        sent_at=NOW,
        deployment_id=deployment_id,
        artifact=a_ref(),
        state=state,
        error_code=error_code,
        active=a_ref(),
    )


def an_event_report(report_id: str = "report-1", event: str = "started") -> EventReport:
    """Something an operator should know."""
    return EventReport(report_id=report_id, sent_at=NOW, event=event)


def a_get(indices: tuple[int, ...] = (0, 1, 2), chunk_bytes: int = 1024) -> Get:
    """A request for chunks of `a_manifest`'s payload."""
    return Get(
        sha256=a_manifest().payload.sha256,
        chunk_bytes=chunk_bytes,
        indices=indices,
    )
