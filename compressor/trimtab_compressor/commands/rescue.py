"""`rescue`: quantize a task's network or a model file to int8 without losing more than is allowed."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_compressor.commands.options import FORMATS, open_cache, read_formats, write_text
from trimtab_compressor.commands.subject import add_subject_arguments, read_subject_paths
from trimtab_protocol.errors import ConfigError, ErrorCode, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trimtab_compressor.build import Builder
    from trimtab_compressor.judgement import FileJudgement
    from trimtab_compressor.rescue.climb import Climb
    from trimtab_compressor.rescue.report import FormatReport
    from trimtab_compressor.subject import AnySubject
    from trimtab_protocol.manifest import ModelFormat

HELP = "quantize to int8, and do more and more until no more accuracy is lost than is allowed"
DEFAULT_MAX_DROP = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Subject, what may be lost, output."""
    add_subject_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--max-drop",
        type=float,
        default=DEFAULT_MAX_DROP,
        metavar="POINTS",
        help=f"of accuracy, in percentage points; default: {DEFAULT_MAX_DROP}",
    )
    parser.add_argument("--format", choices=FORMATS, default="both")
    parser.add_argument(
        "--symmetric", action="store_true", help="ONNX: signed activations around zero"
    )
    parser.add_argument(
        "--reduce-range",
        action="store_true",
        help="ONNX: weights of 7 bits, for x86 CPUs without VNNI",
    )
    parser.add_argument("--cache", type=Path, help="default: TRIMTAB_CACHE, else ~/.cache/trimtab")
    parser.add_argument("--json", action="store_true", help="print the report instead of a table")


def run(options: argparse.Namespace) -> None:
    """Climb for each format, print what every rung gave, write the files and `rescue.json`.

    Raises:
        ConfigError: The subject or an option is wrong.
        ModelError: No rung was enough for a format; the files of the others are written.
    """
    if not 0 <= options.max_drop <= 100:
        raise ConfigError(f"--max-drop is {options.max_drop:g}; give points between 0 and 100")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {options.out} cannot be made ({error.strerror})") from error
    cache = open_cache(options.cache)

    from trimtab_compressor.show import print_rescue, tell  # noqa: PLC0415 - keeps start fast
    from trimtab_compressor.subject import open_subject, read_formats_of  # noqa: PLC0415

    wanted = read_formats(options.format)
    subject = open_subject(read_subject_paths(options), wanted, cache, tell)
    formats = read_formats_of(subject, wanted)

    from trimtab_compressor.build import Builder  # noqa: PLC0415 - imports torch
    from trimtab_compressor.progress import show_progress  # noqa: PLC0415
    from trimtab_compressor.rescue.report import RescueReport  # noqa: PLC0415

    reports, failures = [], []
    with show_progress() as progress:
        builder = Builder(subject, cache, progress.report, on_step=progress.finish)
        for model_format in formats:
            report, failure = _climb(builder, subject, model_format, options, progress.note)
            reports.append(report)
            failures += [f"{model_format.value}: {failure}"] if failure else []
    document = RescueReport(
        subject=subject.name, max_drop_points=options.max_drop, formats=tuple(reports)
    )
    write_text(options.out / "rescue.json", document.model_dump_json(indent=2))
    if options.json:
        print(document.model_dump_json(indent=2))
    else:
        print_rescue(document)
    if failures:
        raise ModelError("; ".join(failures), code=ErrorCode.MODEL_GOLDEN)


def _climb(
    builder: Builder,
    subject: AnySubject,
    model_format: ModelFormat,
    options: argparse.Namespace,
    note: Callable[[str], None],
) -> tuple[FormatReport, str]:
    """One format: its report, and why there is no file, if there is none."""
    from trimtab_compressor.rescue.bench import TaskBench, start_bench  # noqa: PLC0415
    from trimtab_compressor.rescue.climb import climb  # noqa: PLC0415
    from trimtab_compressor.rescue.decide import Goal  # noqa: PLC0415
    from trimtab_compressor.rescue.report import explain_failure  # noqa: PLC0415
    from trimtab_compressor.rescue.rungs import naive_setting  # noqa: PLC0415
    from trimtab_compressor.results import path_of  # noqa: PLC0415
    from trimtab_compressor.task import Task  # noqa: PLC0415

    bench = (
        TaskBench(builder, model_format)
        if isinstance(subject, Task)
        else start_bench(builder, (), model_format)
    )
    is_onnx = model_format.value == "onnx"
    start = naive_setting(
        is_symmetric=options.symmetric and is_onnx,
        is_range_reduced=options.reduce_range and is_onnx,
    )
    goal = Goal(bench.measure_float(), options.max_drop)
    found = climb(bench, goal, start, lambda line: note(f"{model_format.value}: {line}"))
    name = None
    if found.stop.is_enough and found.stop.best is not None:
        name = f"{subject.name}.int8.{model_format.value}"
        shutil.copyfile(
            path_of(builder.cache, bench.result(found.stop.best.setting)), options.out / name
        )
    return _report(bench.float_judgement(), found, model_format, name), (
        "" if name else explain_failure(found)
    )


def _report(
    judgement: FileJudgement, found: Climb, model_format: ModelFormat, name: str | None
) -> FormatReport:
    from trimtab_compressor.rescue.report import (  # noqa: PLC0415 - keeps start fast
        FormatReport,
        enough_rung,
        list_settings,
    )

    return FormatReport(
        format=model_format,
        metric=judgement.quality.metric,
        samples=judgement.quality.samples,
        float_accuracy=found.goal.reference,
        float_bytes=judgement.size_bytes,
        settings=list_settings(found),
        enough=enough_rung(found),
        file=name,
    )
