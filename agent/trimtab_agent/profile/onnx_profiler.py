"""Run a model in ONNX Runtime with its trace switched on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab_agent.profile.jobs import ProfileJob
from trimtab_agent.profile.onnx_trace import Trace, parse_trace
from trimtab_agent.profile.pacing import choose_runs
from trimtab_agent.profile.record import ProfiledRuns
from trimtab_agent.runtimes.base import code_of_failure
from trimtab_agent.runtimes.onnx_runtime import PROVIDERS, OnnxModel
from trimtab_protocol.errors import ErrorCode, ModelError

if TYPE_CHECKING:
    import numpy

WARM_UP_RUNS = 5


def profile_onnx(job: ProfileJob, folder: Path) -> ProfiledRuns:
    """Profile: a short look to learn how many events a run leaves, then the runs that count.

    Args:
        job: The model.
        folder: Where the traces may lie for a while.

    Raises:
        ModelError: ONNX Runtime is missing, the model does not run, or the trace is of a form that
            we do not know.
    """
    library = _import()
    look, walls_s = _trace(library, job, folder / "look", (1, 1))
    events = sum(len(row.durations_us) for row in look.operators)
    runs = choose_runs(events, walls_s[-1], job.budget_s)
    trace, walls_s = _trace(library, job, folder / "trace", (WARM_UP_RUNS, runs))
    return ProfiledRuns(
        source=f"onnxruntime {library.__version__} trace",
        runtime=job.runtime.value,
        mode=",".join(PROVIDERS),
        run_us=trace.run_us,
        operators=trace.operators,
        wall_p50_ms=statistics.median(walls_s) * 1e3,
    )


def _import() -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 - only this process may load a runtime
    except ImportError as error:
        raise ModelError("onnxruntime is not installed: pip install 'trimtab[onnx]'") from error
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime


def _trace(
    library: Any, job: ProfileJob, prefix: Path, counts: tuple[int, int]
) -> tuple[Trace, list[float]]:
    """One session: warm-up and runs. The trace, and seconds per run by our own clock."""
    warm_up_runs, runs = counts
    options = library.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    spinning = "1" if job.is_spinning_allowed else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    options.enable_profiling = True
    options.profile_file_prefix = str(prefix)
    try:
        session = library.InferenceSession(job.model_path, options, providers=PROVIDERS)
    except Exception as error:
        code = code_of_failure(error, ErrorCode.MODEL_LOAD)
        raise ModelError(f"ONNX Runtime cannot load it: {error}", code=code) from error
    model = OnnxModel(session)
    infer = model.bind(_feeds(job, model))
    for _ in range(warm_up_runs):
        infer()
    walls_s = [_timed_s(infer) for _ in range(runs)]
    path = Path(session.end_profiling())
    try:
        return parse_trace(path.read_text(encoding="utf-8"), warm_up_runs), walls_s
    finally:
        path.unlink(missing_ok=True)


def _timed_s(infer: Callable[[], object]) -> float:
    started_ns = time.perf_counter_ns()
    infer()
    return (time.perf_counter_ns() - started_ns) / 1e9


def _feeds(job: ProfileJob, model: OnnxModel) -> dict[str, numpy.ndarray[Any, Any]]:
    """The first golden input where there is one, else values grown from a fixed seed."""
    import numpy  # noqa: PLC0415 - only this process may load it

    from trimtab_agent.measure.golden import to_array  # noqa: PLC0415 - needs numpy

    if job.golden is not None:
        return {name: to_array(t) for name, t in job.golden.vectors[0].inputs.items()}
    generator = numpy.random.default_rng(0)
    return {
        spec.name: (generator.random(spec.shape) * (1 if "float" in spec.dtype else 2)).astype(
            spec.dtype
        )
        for spec in model.inputs()
    }
