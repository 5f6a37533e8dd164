"""Real profiles of real models, and what is said where there is none."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from pathlib import Path

import pytest

from support.tiny_models import make_onnx
from support.tiny_tflite import make_tflite
from trimtab_agent.measure.jobs import Settings, Subject
from trimtab_agent.profile import litert_profiler, take
from trimtab_agent.profile.jobs import KernelMode, ProfileJob
from trimtab_agent.profile.take import take_profile
from trimtab_protocol.errors import ModelError
from trimtab_protocol.manifest import ArtifactRef, RuntimeName

SETTINGS = Settings(device_class="test", threads=1)
KNOWN_LITERT = importlib.metadata.version("ai-edge-litert") in litert_profiler.KNOWN_VERSIONS

needs_known_litert = pytest.mark.skipif(
    not KNOWN_LITERT, reason="this version of ai-edge-litert is not on the list"
)


def subject_of(tmp_path: Path, runtime: RuntimeName, content: bytes) -> Subject:
    path = tmp_path / "model"
    path.write_bytes(content)
    return Subject(
        artifact=ArtifactRef(name="digits", version=1, sha256="0" * 64),
        runtime=runtime,
        model_path=str(path),
        size_bytes=len(content),
    )


def fake_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Another module in the worker's place."""
    (tmp_path / "fake_worker.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(take, "WORKER", "fake_worker")


def test_onnx_runtime_tells_which_operators_took_the_time(tmp_path: Path) -> None:
    subject = subject_of(tmp_path, RuntimeName.ONNXRUNTIME, make_onnx(layers=6))
    profile = take_profile(subject, SETTINGS, 1, 0.05)
    assert profile.absent is None
    assert profile.runs == 50
    assert {row.op for row in profile.operators} >= {"MatMul", "Relu"}
    assert {row.calls for row in profile.operators} == {profile.runs}
    assert sum(row.share for row in profile.operators) == pytest.approx(1.0, abs=1e-3)
    assert profile.slowdown is not None
    assert profile.source.startswith("onnxruntime ")


@needs_known_litert
@pytest.mark.parametrize(
    ("mode", "op"), [(KernelMode.DELEGATE, "Multiply (ND)"), (KernelMode.BUILTIN, "MUL")]
)
def test_litert_tells_which_kernels_ran(tmp_path: Path, mode: KernelMode, op: str) -> None:
    subject = subject_of(tmp_path, RuntimeName.LITERT, make_tflite())
    profile = take_profile(subject, SETTINGS, 1, 0.05, mode=mode)
    assert profile.absent is None
    assert profile.mode == mode.value
    assert [row.op for row in profile.operators] == [op]
    assert profile.operators[0].calls == profile.runs == 50


@pytest.mark.parametrize("runtime", list(RuntimeName))
def test_a_file_that_is_no_model_gives_no_profile_but_a_reason(
    tmp_path: Path, runtime: RuntimeName
) -> None:
    profile = take_profile(subject_of(tmp_path, runtime, b"no model" * 99), SETTINGS, 1, 1.0)
    assert profile.absent is not None
    assert profile.operators == ()


def test_a_crash_gives_no_profile_but_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_worker(tmp_path, monkeypatch, "import os\nos.kill(os.getpid(), 11)\n")
    profile = take_profile(subject_of(tmp_path, RuntimeName.LITERT, b""), SETTINGS, 1, 1.0)
    assert profile.absent is not None
    assert "was killed by SIGSEGV" in profile.absent


def test_a_worker_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = f"import os, pathlib, time\npathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\ntime.sleep(60)\n"
    fake_worker(tmp_path, monkeypatch, body)
    subject = subject_of(tmp_path, RuntimeName.LITERT, b"")
    profile = take_profile(subject, SETTINGS, 1, 1.0, timeout_s=2.0)
    assert profile.absent == "the profiling process did not end within 2 s"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    "body", ["", "import sys, pathlib\npathlib.Path(sys.argv[2]).write_text('{')"]
)
def test_a_worker_without_a_readable_result_gives_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    fake_worker(tmp_path, monkeypatch, body)
    profile = take_profile(subject_of(tmp_path, RuntimeName.LITERT, b""), SETTINGS, 1, 1.0)
    assert profile.absent == "the profiling process ended without a readable result"


def test_a_full_disk_gives_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", no_space)
    profile = take_profile(subject_of(tmp_path, RuntimeName.LITERT, b""), SETTINGS, 1, 1.0)
    assert profile.absent is not None
    assert "No space left" in profile.absent


def test_an_unknown_version_of_litert_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "2.1.0")
    with pytest.raises(ModelError, match=r"2\.1\.6, 2\.2\.0, 2\.3\.0; 2\.1\.0 is installed"):
        litert_profiler.known_version()


def test_the_delegate_is_not_named_because_an_older_version_refuses_the_name() -> None:
    job = ProfileJob(runtime=RuntimeName.LITERT, model_path="m", threads=3)
    assert litert_profiler.cpu_options(job) == "num_threads = 3\n"
    builtin = job.model_copy(update={"mode": KernelMode.BUILTIN})
    assert 'kernel_mode = "builtin"' in litert_profiler.cpu_options(builtin)


def test_without_litert_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ModelError, match="ai-edge-litert is not installed"):
        litert_profiler.known_version()


def test_without_onnx_runtime_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('not here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    subject = subject_of(tmp_path, RuntimeName.ONNXRUNTIME, make_onnx())
    profile = take_profile(subject, SETTINGS, 1, 1.0)
    assert profile.absent == "onnxruntime is not installed: pip install 'trimtab[onnx]'"
