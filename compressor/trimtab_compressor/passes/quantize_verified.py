"""Static quantization that measures itself: the ladder as one pass, so that a recipe can hold it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_compressor.arrays import digest_array, digest_file, digest_key
from trimtab_compressor.cache import Cache
from trimtab_compressor.evaluate import run_file
from trimtab_compressor.evidence import Evidence
from trimtab_compressor.passes.stage import FileStage, Findings
from trimtab_compressor.plan import Point, Step
from trimtab_compressor.results import path_of, save_outputs
from trimtab_compressor.runtimes.port import Arrays, Kernels
from trimtab_compressor.runtimes.table import format_of
from trimtab_compressor.specs.quantization import QuantizeVerified
from trimtab_protocol.errors import ErrorCode, ModelError

if TYPE_CHECKING:
    from trimtab_compressor.rescue.bench import FileBench


def quantize_verified(stage: FileStage[QuantizeVerified]) -> Findings:
    """Write the first quantized form of a file that loses no more than is allowed.

    Raises:
        ModelError: `model.golden`: no rung of the ladder is enough; the message says how far the best
            one came.
    """
    # Here, because what carries passes out needs the table that this pass is in.
    from trimtab_compressor.rescue.climb import climb  # noqa: PLC0415
    from trimtab_compressor.rescue.decide import Goal  # noqa: PLC0415
    from trimtab_compressor.rescue.report import explain_failure, report_findings  # noqa: PLC0415
    from trimtab_compressor.rescue.rungs import naive_setting  # noqa: PLC0415

    spec = stage.spec
    with _open_cache(stage) as cache:
        bench = _open_bench(stage, cache)
        goal = Goal(bench.measure_float(), spec.max_drop)
        start = naive_setting(
            is_symmetric=spec.is_symmetric, is_range_reduced=spec.is_range_reduced
        )
        found = climb(bench, goal, start, lambda _: None)
        best = found.stop.best
        if best is None or not found.stop.is_enough:
            raise ModelError(explain_failure(found), code=ErrorCode.MODEL_GOLDEN)
        shutil.copyfile(path_of(cache, bench.result(best.setting)), stage.target)
    return report_findings(found)


@contextmanager
def _open_cache(stage: FileStage[QuantizeVerified]) -> Iterator[Cache]:
    if stage.cache is not None:
        yield stage.cache
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Cache(Path(folder))


def _open_bench(stage: FileStage[QuantizeVerified], cache: Cache) -> FileBench:
    from trimtab_compressor.file_line import FileLine  # noqa: PLC0415 - see above
    from trimtab_compressor.rescue.bench import FileBench  # noqa: PLC0415

    validation, model_format = stage.validation, format_of(stage.source)
    assert validation is not None
    key = digest_key({"source": digest_file(stage.source)})
    labels = validation.labels
    digests = {"calibration": _digest(stage.calibration), "test": _digest(validation.inputs)}
    if labels is not None:
        digests["test_labels"] = digest_array(labels)

    def run_float(path: Path) -> None:
        save_outputs(run_file(stage.source, validation.inputs, Kernels.EXACT), path)

    source = Step(
        "read the float file",
        key,
        f".{model_format.value}",
        lambda path: _copy(stage.source, path),
    )
    outputs = Step(
        "run the float file",
        digest_key({"outputs": key, "data": digests["test"]}),
        ".npz",
        run_float,
    )
    evidence = Evidence(stage.calibration, validation.inputs, labels, digests)
    line = FileLine(evidence, outputs, model_format, cache, lambda: stage.ranges)
    first = Point("given", None, source, outputs, line.judgement(source, "reading it"))

    def do(step: Step) -> None:
        cache.get_or_make(step.key, step.suffix, step.make)

    for step in first.steps():
        do(step)
    return FileBench(line, evidence, first, cache=cache, do=do)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _digest(samples: Arrays) -> str:
    return digest_key({name: digest_array(rows) for name, rows in samples.items()})
