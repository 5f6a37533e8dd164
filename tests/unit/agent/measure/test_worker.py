"""One process that runs one model: its steps in this process, its dangers in real ones."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import Any

import numpy
import pytest

from support.tiny_models import make_onnx
from support.tiny_tflite import make_tflite
from trimtab_agent.measure import worker
from trimtab_agent.measure.jobs import WorkerJob, WorkerResult
from trimtab_agent.measure.protocol import run_worker_process
from trimtab_agent.measure.worker import run_worker
from trimtab_protocol.errors import ErrorCode, ModelError, TrimtabError
from trimtab_protocol.manifest import Golden, GoldenVector, RuntimeName
from trimtab_protocol.tensors import pack_tensor

X = numpy.array([[1, 2, 3, 4]], numpy.float32)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a worker sets for itself must not stay with the other tests."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")


def a_golden(scale: float, width: int = 4) -> Golden:
    y = numpy.zeros((1, width), numpy.float32)
    y[:, : min(4, width)] = X[:, :width] * scale
    vector = GoldenVector(
        inputs={"x": pack_tensor("float32", (1, 4), X.tobytes())},
        outputs={"y": pack_tensor("float32", (1, width), y.tobytes())},
    )
    return Golden(vectors=(vector,), max_abs_error=1e-5)


def a_job(folder: Path, content: bytes | None = None, **changes: Any) -> WorkerJob:
    runtime = changes.pop("runtime", RuntimeName.ONNXRUNTIME)
    path = folder / ("model.onnx" if runtime is RuntimeName.ONNXRUNTIME else "model.tflite")
    path.write_bytes(make_onnx() if content is None else content)
    facts: dict[str, Any] = {
        "runtime": runtime,
        "model_path": str(path),
        "threads": 1,
        "is_spinning_allowed": False,
        "min_runs": 11,
        "spawned_at_ns": worker.STARTED_AT_NS - 5_000_000,
    }
    return WorkerJob(**(facts | changes))


@pytest.mark.parametrize(
    ("runtime", "content", "package"),
    [
        (RuntimeName.ONNXRUNTIME, make_onnx(2.0), "onnxruntime"),
        (RuntimeName.LITERT, make_tflite(2.0), "ai-edge-litert"),
    ],
)
def test_a_model_is_loaded_checked_warmed_up_and_timed(
    tmp_path: Path, runtime: RuntimeName, content: bytes, package: str
) -> None:
    result = run_worker(a_job(tmp_path, content, runtime=runtime, golden=a_golden(2.0)))
    assert result.error_code is None
    assert result.runtime_package == package
    assert result.runs >= 11
    assert set(result.percentiles) == {50, 90, 95, 99}
    values = [result.percentiles[percentile].value_ns for percentile in (50, 90, 95, 99)]
    assert values == sorted(values)
    assert 0 < values[0] <= result.max_ns
    assert all(len(row.replicates_ns) == worker.REPLICATES for row in result.percentiles.values())
    assert result.spawn_ns == 5_000_000
    for phase in ("import_ns", "load_ns", "first_inference_ns", "warm_up_ns", "steady_ns"):
        assert getattr(result, phase) > 0, phase
    assert result.warm_up_runs >= worker.MIN_WARM_UP_RUNS
    assert result.cpu_ns_per_run > 0
    assert result.affinity == tuple(sorted(os.sched_getaffinity(0)))


def test_memory_grows_from_the_runtime_to_the_peak_and_is_read_before_the_statistics(
    tmp_path: Path,
) -> None:
    """[P-7.5]"""
    result = run_worker(a_job(tmp_path))
    assert result.baseline_bytes is not None
    assert result.load_peak_bytes is not None
    assert result.peak_bytes is not None
    assert 0 < result.baseline_bytes <= result.load_peak_bytes <= result.peak_bytes


def test_without_proc_memory_is_absent_and_the_rest_is_measured(tmp_path: Path) -> None:
    result = run_worker(a_job(tmp_path, proc_root=str(tmp_path / "no proc")))
    assert (result.baseline_bytes, result.load_peak_bytes, result.peak_bytes) == (None, None, None)
    assert result.runs >= 11


def test_a_check_is_not_timed(tmp_path: Path) -> None:
    result = run_worker(a_job(tmp_path, golden=a_golden(2.0), is_timed=False))
    assert result.runs == 0
    assert result.percentiles == {}
    assert result.first_inference_ns > 0
    assert result.peak_bytes is not None


def test_collecting_garbage_is_on_again_after_the_timed_runs(tmp_path: Path) -> None:
    run_worker(a_job(tmp_path))
    assert gc.isenabled()


def test_at_least_the_runs_and_the_seconds_that_were_asked_for(tmp_path: Path) -> None:
    result = run_worker(a_job(tmp_path, min_runs=130, min_steady_s=0.1, warm_up_s=0.05))
    assert result.runs >= 130
    assert result.steady_ns >= 100_000_000
    assert result.warm_up_ns >= 50_000_000


def test_a_very_fast_model_is_bounded_in_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MAX_RUNS", 100)
    assert run_worker(a_job(tmp_path, min_steady_s=5.0)).runs == 100


def test_a_warm_up_that_never_converges_ends_and_says_so() -> None:
    durations = iter(range(1, 10**9))

    def slower_and_slower() -> None:
        for _ in range(next(durations) * 5):
            pass

    facts = worker._warm_up(slower_and_slower, 0.0)
    assert facts["warm_up_runs"] >= worker.MAX_WARM_UP_RUNS
    assert facts["is_warm_up_converged"] is False


@pytest.mark.parametrize(
    ("golden", "says"),
    [(a_golden(3.0), "off by 4"), (a_golden(2.0, width=3), "shape")],
)
def test_a_model_that_computes_something_else_fails_before_it_is_timed(
    tmp_path: Path, golden: Golden, says: str
) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        run_worker(a_job(tmp_path, golden=golden, min_runs=10**6, min_steady_s=600.0))
    assert caught.value.code is ErrorCode.MODEL_GOLDEN


def test_a_model_of_nan_fails(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="finite"):
        run_worker(a_job(tmp_path, make_onnx(float("nan")), golden=a_golden(2.0)))


def test_cpus_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrimtabError, match="4095") as caught:
        run_worker(a_job(tmp_path, affinity=(4095,)))
    assert caught.value.code is ErrorCode.CONFIG_INVALID


def run_main(
    monkeypatch: pytest.MonkeyPatch, folder: Path, job: WorkerJob
) -> tuple[int, WorkerResult]:
    monkeypatch.setattr(worker, "die_with_parent", lambda _pid: None)  # the tests go on living
    (folder / "job").write_text(job.model_dump_json())
    code = worker.main(folder / "job", folder / "result", os.getppid())
    return code, WorkerResult.model_validate_json((folder / "result").read_bytes())


def test_an_error_is_a_result_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, result = run_main(monkeypatch, tmp_path, a_job(tmp_path, b"garbage"))
    assert code == 0
    assert result.error_code is ErrorCode.MODEL_LOAD


def test_a_lack_of_memory_is_a_result_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(_job: WorkerJob) -> WorkerResult:
        raise MemoryError

    monkeypatch.setattr(worker, "run_worker", exhaust)
    _, result = run_main(monkeypatch, tmp_path, a_job(tmp_path, max_memory_bytes=12345))
    assert result.error_code is ErrorCode.MODEL_MEMORY
    assert "12345 bytes" in result.detail


def test_what_was_found_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, result = run_main(monkeypatch, tmp_path, a_job(tmp_path))
    assert result.runs >= 11


def test_in_its_own_process_it_finds_the_same(tmp_path: Path) -> None:
    result = run_worker_process(a_job(tmp_path, golden=a_golden(2.0)), 60)
    assert result.runs >= 11
    assert result.spawn_ns > 0


def test_a_file_of_garbage_fails_in_its_own_process_with_its_code(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load it") as caught:
        run_worker_process(a_job(tmp_path, b"garbage"), 60)
    assert caught.value.code is ErrorCode.MODEL_LOAD


def test_a_model_that_needs_more_memory_than_it_may_have_fails_with_that(tmp_path: Path) -> None:
    big = make_onnx(padding_bytes=100_000_000)
    job = a_job(tmp_path, big, is_timed=False, max_memory_bytes=200_000_000)
    with pytest.raises(ModelError) as caught:
        run_worker_process(job, 60)
    assert caught.value.code is ErrorCode.MODEL_MEMORY


def test_one_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did not end within 1 s") as caught:
        run_worker_process(a_job(tmp_path, min_steady_s=60.0, min_runs=10**6), 1.0)
    assert caught.value.code is ErrorCode.MODEL_TIMEOUT


def test_threads_are_confined_to_the_cpus_that_were_named(tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    result = run_worker_process(a_job(tmp_path, affinity=(cpu,)), 60)
    assert result.affinity == (cpu,)
