"""One process that runs one model: its steps in this process, its dangers in real ones."""

from __future__ import annotations

import gc
import os
import socket
import time
import tracemalloc
from array import array
from pathlib import Path
from typing import Any

import numpy
import pytest

from support.tiny_models import make_onnx
from support.tiny_tflite import make_tflite
from trimtab_agent.measure import summary, timing, worker
from trimtab_agent.measure.jobs import Action, Answer, Command, TimedRuns, WorkerJob, WorkerResult
from trimtab_agent.measure.timing import Samples
from trimtab_agent.measure.worker import Worker
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
        "spawned_at_ns": worker.STARTED_AT_NS - 5_000_000,
    }
    return WorkerJob(**(facts | changes))


def run_worker(job: WorkerJob, min_runs: int = 11, min_s: float = 0.0) -> WorkerResult:
    """A worker in this process: started, one burst, finished."""
    started = Worker(job)
    if min_runs:
        started.obey(Command(action=Action.BURST, runs=min_runs, seconds=min_s))
    result = started.obey(Command(action=Action.FINISH)).result
    assert result is not None
    return result


def burst_of(result: WorkerResult) -> TimedRuns:
    assert result.burst is not None
    return result.burst


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
    burst = burst_of(result)
    assert result.runtime_package == package
    assert burst.runs >= 11
    assert set(burst.percentiles) == {50, 90, 95, 99}
    values = [burst.percentiles[percentile].value_ns for percentile in (50, 90, 95, 99)]
    assert values == sorted(values)
    assert 0 < values[0] <= burst.max_ns
    assert all(len(row.replicates_ns) == summary.REPLICATES for row in burst.percentiles.values())
    assert result.spawn_ns == 5_000_000
    for phase in ("import_ns", "load_ns", "first_inference_ns", "warm_up_ns"):
        assert getattr(result, phase) > 0, phase
    assert burst.wall_ns > 0
    assert result.warm_up_runs >= timing.MIN_WARM_UP_RUNS
    assert burst.cpu_ns_per_run > 0
    assert result.affinity == tuple(sorted(os.sched_getaffinity(0)))
    assert result.paced is None


def test_memory_grows_from_the_runtime_to_the_peak(tmp_path: Path) -> None:
    """[P-7.5]"""
    memory = run_worker(a_job(tmp_path)).memory
    assert memory.baseline_bytes is not None
    assert memory.load_peak_bytes is not None
    assert memory.inference_peak_bytes is not None
    assert memory.peak_bytes == max(memory.load_peak_bytes, memory.inference_peak_bytes)
    assert 0 < memory.baseline_bytes <= memory.load_peak_bytes
    assert memory.uss_bytes is not None
    assert memory.pss_bytes is not None
    assert memory.rss_bytes is not None
    assert 0 < memory.uss_bytes <= memory.pss_bytes <= memory.rss_bytes
    assert memory.rss_bytes <= memory.peak_bytes + 1_000_000  # VmHWM counts in batches of pages
    assert memory.baseline_pss_bytes is not None
    assert memory.baseline_uss_bytes is not None
    assert memory.baseline_uss_bytes <= memory.baseline_pss_bytes


def test_what_only_loading_needs_is_not_in_the_peak_of_inference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter([100, 900, 300])
    resets = iter([True, True])
    monkeypatch.setattr(worker, "read_status_bytes", lambda *_: next(peaks))
    monkeypatch.setattr(worker, "reset_peak", lambda *_: next(resets))
    memory = run_worker(a_job(tmp_path)).memory
    assert (memory.baseline_bytes, memory.load_peak_bytes) == (100, 900)
    assert (memory.inference_peak_bytes, memory.peak_bytes) == (300, 900)


def test_a_peak_that_cannot_be_reset_is_not_called_that_of_inference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter([100, 900, 900])
    monkeypatch.setattr(worker, "read_status_bytes", lambda *_: next(peaks))
    monkeypatch.setattr(worker, "reset_peak", lambda *_: False)
    memory = run_worker(a_job(tmp_path)).memory
    assert memory.inference_peak_bytes is None
    assert memory.peak_bytes == 900


def test_without_proc_memory_is_absent_and_the_rest_is_measured(tmp_path: Path) -> None:
    result = run_worker(a_job(tmp_path, proc_root=str(tmp_path / "no proc")))
    assert set(result.memory.model_dump().values()) == {None}
    assert burst_of(result).runs >= 11


def test_a_check_is_neither_warmed_up_nor_timed(tmp_path: Path) -> None:
    job = a_job(tmp_path, golden=a_golden(2.0), is_warmed_up=False)
    result = run_worker(job, min_runs=0)
    assert result.burst is None
    assert result.warm_up_runs == 0
    assert result.first_inference_ns > 0
    assert result.memory.peak_bytes is not None


def test_bursts_of_one_process_are_put_together(tmp_path: Path) -> None:
    started = Worker(a_job(tmp_path))
    counts = [
        started.obey(Command(action=Action.BURST, runs=number)).runs for number in (11, 64, 130)
    ]
    result = started.obey(Command(action=Action.FINISH)).result
    assert result is not None
    assert burst_of(result).runs == sum(counts)


def test_paced_runs_are_a_figure_of_their_own(tmp_path: Path) -> None:
    started = Worker(a_job(tmp_path))
    answer = started.obey(Command(action=Action.PACED, runs=20, period_ms=5.0))
    result = started.obey(Command(action=Action.FINISH)).result
    assert result is not None
    assert answer.runs == 20
    assert result.burst is None
    assert result.paced is not None
    assert result.paced.runs == 20
    assert result.paced.wall_ns >= 19 * 5_000_000  # the timed runs, less the last period


def test_a_load_runs_for_as_long_as_it_is_told_and_says_when(tmp_path: Path) -> None:
    started = Worker(a_job(tmp_path))
    answer = started.obey(Command(action=Action.LOAD, seconds=0.1))
    assert answer.ended_s - answer.started_s >= 0.1
    assert answer.runs > 10


def test_raw_nanoseconds_are_kept_in_the_order_of_the_runs(tmp_path: Path) -> None:
    prefix = tmp_path / "samples" / "process-0"
    started = Worker(a_job(tmp_path, samples_prefix=str(prefix)))
    started.obey(Command(action=Action.BURST, runs=64))
    started.obey(Command(action=Action.PACED, runs=11, period_ms=2.0))
    result = started.obey(Command(action=Action.FINISH)).result
    assert result is not None
    assert result.are_samples_kept
    burst = numpy.load(f"{prefix}-burst.npy")
    assert burst.dtype == numpy.int64
    assert len(burst) == burst_of(result).runs
    assert int(burst.max()) == burst_of(result).max_ns
    assert float(numpy.median(burst)) == burst_of(result).percentiles[50].value_ns
    assert len(numpy.load(f"{prefix}-paced.npy")) == 11


def test_samples_that_cannot_be_written_do_not_cost_the_measurement(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    result = run_worker(a_job(tmp_path, samples_prefix=str(tmp_path / "file" / "process-0")))
    assert not result.are_samples_kept
    assert burst_of(result).runs >= 11


def test_collecting_garbage_is_on_again_after_the_timed_runs(tmp_path: Path) -> None:
    run_worker(a_job(tmp_path))
    assert gc.isenabled()


def test_garbage_is_not_collected_while_runs_are_timed(tmp_path: Path) -> None:
    seen = []
    samples = Samples(Path("/proc"))
    timing.run_burst(lambda: seen.append(gc.isenabled()), samples, 11, 0.0)
    assert not any(seen[-11:])


def test_at_least_the_runs_and_the_seconds_that_were_asked_for(tmp_path: Path) -> None:
    result = run_worker(a_job(tmp_path, warm_up_s=0.05), min_runs=130, min_s=0.1)
    assert burst_of(result).runs >= 130
    assert burst_of(result).wall_ns >= 100_000_000
    assert result.warm_up_ns >= 50_000_000


def test_a_very_fast_model_is_bounded_in_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "MAX_RUNS", 100)
    assert burst_of(run_worker(a_job(tmp_path), min_s=5.0)).runs == 100


def test_a_warm_up_that_never_converges_ends_and_says_so() -> None:
    durations = iter(range(1, 10**9))

    def slower_and_slower() -> None:
        for _ in range(next(durations) * 5):
            pass

    found = timing.warm_up(slower_and_slower, 0.0)
    assert found.runs >= timing.MAX_WARM_UP_RUNS
    assert found.is_converged is False


def test_runs_that_outlast_the_period_are_late_and_the_pace_goes_on() -> None:
    samples = Samples(Path("/proc"))
    slow = iter([False] * (timing.PACED_LEAD_RUNS + 2) + [True] + [False] * 20)
    timing.run_paced(lambda: time.sleep(0.05) if next(slow) else None, samples, 20_000_000, 11)
    assert len(samples.durations_ns) == 11
    assert 1 <= samples.late <= 3  # the machine itself may be late too
    assert max(samples.durations_ns) >= 50_000_000


def test_runs_before_the_timed_ones_are_not_counted_as_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock_ns = 0

    def infer() -> None:  # the lead runs take longer than two periods, the timed ones a tenth
        nonlocal clock_ns
        clock_ns += 250 if infer.runs < timing.PACED_LEAD_RUNS else 10  # type: ignore[attr-defined]
        infer.runs += 1  # type: ignore[attr-defined]

    def sleep(seconds: float) -> None:
        nonlocal clock_ns
        clock_ns += round(seconds * 1e9)

    infer.runs = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(time, "perf_counter_ns", lambda: clock_ns)
    monkeypatch.setattr(time, "sleep", sleep)
    samples = Samples(Path("/proc"))
    timing.run_paced(infer, samples, 100, 11)
    assert list(samples.durations_ns) == [10] * 11
    assert samples.late == 1  # the first timed one, which the last of the lead delayed


def test_only_the_timed_runs_of_a_pace_are_in_the_cpu_time_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock_ns = 0

    def infer() -> None:
        nonlocal clock_ns
        clock_ns += 10

    def sleep(seconds: float) -> None:
        nonlocal clock_ns
        clock_ns += round(seconds * 1e9)

    monkeypatch.setattr(time, "perf_counter_ns", lambda: clock_ns)
    monkeypatch.setattr(time, "process_time_ns", lambda: clock_ns)
    monkeypatch.setattr(time, "sleep", sleep)
    samples = Samples(Path("/proc"))
    timing.run_paced(infer, samples, 100, 11)
    assert samples.wall_ns == samples.cpu_ns == 11 * 100  # without the lead


def test_garbage_is_collected_before_the_untimed_runs_that_warm_the_caches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened: list[str] = []
    monkeypatch.setattr(gc, "collect", lambda: happened.append("collected"))
    timing.run_burst(lambda: happened.append("run"), Samples(Path("/proc")), 11, 0.0)
    timing.run_paced(lambda: happened.append("run"), Samples(Path("/proc")), 1000, 11)
    assert happened[0] == "collected"
    again = happened.index("collected", 1)
    assert happened[again + 1 :] == ["run"] * (timing.PACED_LEAD_RUNS + 11)


@pytest.mark.parametrize(("asked", "timed"), [(11, 11), (50, 50), (60, 60), (0, 1)])
def test_a_slow_model_runs_no_more_often_than_it_has_to(
    monkeypatch: pytest.MonkeyPatch, asked: int, timed: int
) -> None:
    clock_ns = 0

    def infer() -> None:
        nonlocal clock_ns
        clock_ns += 1_000_000_000

    monkeypatch.setattr(time, "perf_counter_ns", lambda: clock_ns)
    assert timing.run_burst(infer, Samples(Path("/proc")), asked, 0.5) == timed


def test_a_burst_begins_with_untimed_runs_until_caches_and_clocks_are_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock_ns, runs = 0, 0

    def infer() -> None:
        nonlocal clock_ns, runs
        clock_ns += 1_000_000
        runs += 1

    monkeypatch.setattr(time, "perf_counter_ns", lambda: clock_ns)
    timed = timing.run_burst(infer, Samples(Path("/proc")), 50, 0.0)
    assert (timed, runs) == (50, 70)


def test_figures_of_one_process_are_those_of_its_raw_nanoseconds() -> None:
    durations = array("q", [100] * 60 + [110] * 30 + [10_000] * 10)
    samples = Samples(Path("/proc"), durations, wall_ns=5, cpu_ns=200, involuntary_switches=3)
    found = summary.summarize(samples, seed=1)
    assert found.runs == 100
    assert found.percentiles[50].value_ns == 100
    assert found.max_ns == 10_000
    assert found.mad_ns == 0.0
    assert found.first_half_median_ns == 100
    assert found.second_half_median_ns == 110
    assert found.cpu_ns_per_run == 2.0
    assert (found.wall_ns, found.involuntary_switches) == (5, 3)


def test_what_was_timed_takes_little_memory_beside_the_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock_ns = 0

    def tick() -> int:
        nonlocal clock_ns
        clock_ns += 1000
        return clock_ns

    monkeypatch.setattr(time, "perf_counter_ns", tick)
    samples = Samples(Path("/proc"))
    tracemalloc.start()
    try:
        timing.run_burst(lambda: None, samples, timing.MAX_RUNS, 0.0)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(samples.durations_ns) == timing.MAX_RUNS
    assert peak_bytes < 25 * timing.MAX_RUNS  # 8 each, twice; an int in a list is 40


def test_the_replicates_of_the_most_runs_of_all_take_little_memory() -> None:
    samples = Samples(Path("/proc"), array("q", range(4 * timing.MAX_RUNS)))
    tracemalloc.start()
    try:
        summary.summarize(samples, seed=0)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 20_000_000


def test_outliers_are_counted_and_stay_in() -> None:
    durations = array("q", [95, 100, 105] * 30 + [126] * 5 + [124] * 5)
    found = summary.summarize(Samples(Path("/proc"), durations), seed=0)
    assert found.mad_ns == 5.0
    assert found.outliers == 5  # above 100 + 5 x 5
    assert found.max_ns == 126


@pytest.mark.parametrize(
    ("golden", "says"),
    [(a_golden(3.0), "off by 4"), (a_golden(2.0, width=3), "shape")],
)
def test_a_model_that_computes_something_else_fails_before_it_is_timed(
    tmp_path: Path, golden: Golden, says: str
) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        Worker(a_job(tmp_path, golden=golden, warm_up_s=600.0))
    assert caught.value.code is ErrorCode.MODEL_GOLDEN


def test_a_model_of_nan_fails(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="finite"):
        Worker(a_job(tmp_path, make_onnx(float("nan")), golden=a_golden(2.0)))


def test_cpus_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrimtabError, match="4095") as caught:
        Worker(a_job(tmp_path, affinity=(4095,)))
    assert caught.value.code is ErrorCode.CONFIG_INVALID


def serve(job: WorkerJob, *commands: Command) -> list[Answer]:
    """What a worker in this process says to these commands, given all at once."""
    ours, theirs = socket.socketpair()
    with ours:
        for command in commands:
            ours.sendall(command.model_dump_json().encode() + b"\n")
        ours.shutdown(socket.SHUT_WR)
        worker.serve(job, theirs)
        with ours.makefile("rb") as stream:
            return [Answer.model_validate_json(line) for line in stream]


def test_an_error_is_an_answer_and_the_last_one(tmp_path: Path) -> None:
    answers = serve(a_job(tmp_path, b"garbage"))
    assert [answer.error_code for answer in answers] == [ErrorCode.MODEL_LOAD]


def test_a_lack_of_memory_is_an_answer_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(_job: WorkerJob) -> Worker:
        raise MemoryError

    monkeypatch.setattr(worker, "Worker", exhaust)
    (answer,) = serve(a_job(tmp_path, max_memory_bytes=12345))
    assert answer.error_code is ErrorCode.MODEL_MEMORY
    assert "12345 bytes" in answer.detail


def test_each_command_has_its_answer_and_finishing_is_the_last(tmp_path: Path) -> None:
    burst, finish = Command(action=Action.BURST, runs=11), Command(action=Action.FINISH)
    answers = serve(a_job(tmp_path), burst, finish, burst)
    assert len(answers) == 3
    assert answers[1].runs >= 11
    assert answers[2].result is not None
    assert burst_of(answers[2].result).runs == answers[1].runs


def test_a_worker_whose_parent_hangs_up_ends(tmp_path: Path) -> None:
    assert len(serve(a_job(tmp_path))) == 1
