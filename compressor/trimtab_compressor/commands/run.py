"""`run`: build and evaluate candidates of a task or a model file, and write their files."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_compressor.commands.options import (
    add_recipe_arguments,
    open_cache,
    read_formats,
    read_recipes,
    write_text,
)
from trimtab_compressor.commands.subject import add_subject_arguments, read_subject_paths
from trimtab_protocol.errors import ConfigError, TrimtabError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from trimtab_compressor.build import Builder, Built
    from trimtab_compressor.progress import LineProgress
    from trimtab_compressor.recipe import Choice
    from trimtab_compressor.run_report import RunReport
    from trimtab_compressor.subject import AnySubject

HELP = "build candidates of a task or a model file, evaluate them, and write the files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Subject, recipes, output."""
    add_subject_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    add_recipe_arguments(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="candidates built at once, in processes"
    )
    where.add_argument(
        "--scheduler", metavar="URL", help="build on the workers of a Dask scheduler"
    )
    parser.add_argument("--steps", action="store_true", help="show every intermediate too")
    parser.add_argument("--json", action="store_true", help="print the report instead of a table")


def run(options: argparse.Namespace) -> None:
    """Build, print the table, write `RECIPE.FORMAT` and `results.json`.

    Raises:
        ConfigError: The subject, its samples or a recipe is wrong.
        TrimtabError: A candidate could not be made; the others are written.
    """
    from trimtab_compressor.progress import show_progress  # noqa: PLC0415 - keeps start fast
    from trimtab_compressor.show import tell  # noqa: PLC0415
    from trimtab_compressor.subject import open_subject, read_choices  # noqa: PLC0415

    book, names = read_recipes(options)
    formats = read_formats(options.format)
    if options.jobs < 1:
        raise ConfigError(f"--jobs is {options.jobs}; give at least 1")
    book.choices(names, formats)  # a misspelt name is found before a task is loaded
    _make_folder(options.out)
    cache = open_cache(options.cache)
    subject = open_subject(read_subject_paths(options), formats, cache, tell)
    choices, left_out = read_choices(book, names, formats, subject)
    for reason in left_out:
        tell(f"left out: {reason}")

    from trimtab_compressor.build import Builder  # noqa: PLC0415 - imports torch

    with show_progress() as progress:
        builder = Builder(subject, cache, progress.report, book, progress.finish)
        progress.expect(builder.count_steps(choices))
        if options.jobs > 1 or options.scheduler is not None:
            outcomes = _build_elsewhere(options, builder, choices, progress)
        else:
            outcomes = build_all(builder, choices, progress.note)
        report, failures = _collect(outcomes, choices, options.out, _conditions(builder, subject))
    _write_card(options.out, subject)
    _show(report, options)
    if failures:
        raise failures[0]


def _collect(
    outcomes: Iterable[tuple[Choice, Built | TrimtabError]],
    choices: Sequence[Choice],
    folder: Path,
    conditions: RunReport,
) -> tuple[RunReport, list[TrimtabError]]:
    """Write each candidate when it is finished, and the report also when somebody interrupts."""
    built: list[Built] = []
    failures: list[tuple[Choice, TrimtabError]] = []
    is_complete = False
    try:
        for choice, outcome in outcomes:
            if isinstance(outcome, TrimtabError):
                failures.append((choice, outcome))
            else:
                shutil.copyfile(outcome.path, folder / _file_name(outcome))
                built.append(outcome)
        is_complete = True
    finally:
        built.sort(key=lambda row: choices.index(row.choice))
        failures.sort(key=lambda row: choices.index(row[0]))
        report = _report(conditions, built, failures, is_complete=is_complete)
        write_text(folder / "results.json", report.model_dump_json(indent=2))
    errors = [type(row)(f"{choice}: {row.message}", code=row.code) for choice, row in failures]
    return report, errors


def build_all(
    builder: Builder, choices: Iterable[Choice], note: Callable[[str], None]
) -> Iterator[tuple[Choice, Built | TrimtabError]]:
    """Build every candidate; one that cannot be made does not cost the others."""
    told: set[str] = set()
    for choice in choices:
        try:
            yield choice, builder.build(choice)
        except TrimtabError as error:
            reason = "for the same reason" if error.message in told else error.message
            told.add(error.message)
            note(f"{choice}: cannot be made: {reason}")
            yield choice, error


def _build_elsewhere(
    options: argparse.Namespace,
    builder: Builder,
    choices: Sequence[Choice],
    progress: LineProgress,
) -> Iterator[tuple[Choice, Built | TrimtabError]]:
    """As build_all, by worker processes of this machine or of a Dask cluster."""
    from trimtab_compressor.workers import (  # noqa: PLC0415 - keeps start fast
        Workplace,
        build_spread,
        dask_cluster,
        local_processes,
    )

    cache = open_cache(options.cache).root.resolve()
    workplace = Workplace(
        read_subject_paths(options).resolve(),
        tuple(path.resolve() for path in options.recipe_file),
        cache,
        read_formats(options.format),
    )
    place = dask_cluster(options.scheduler) if options.scheduler else local_processes(options.jobs)
    with place as executor:
        for choice, outcome in build_spread(executor, workplace, choices):
            if isinstance(outcome, TrimtabError):
                progress.note(f"{choice}: cannot be made: {outcome.message}")
            else:
                progress.report(f"{choice}: built in {outcome.seconds:.1f} s")
            for step in builder.plan(choice).steps():
                progress.finish(step)
            yield choice, outcome


def _conditions(builder: Builder, subject: AnySubject) -> RunReport:
    """A report of no candidates: what all of them depend on."""
    from trimtab_compressor.run_report import RunReport  # noqa: PLC0415 - keeps start fast
    from trimtab_protocol.manifest import ModelFormat  # noqa: PLC0415

    tools: dict[str, str] = {}
    for model_format in ModelFormat:
        tools |= builder.tools(model_format)
    return RunReport(
        task=subject.name,
        candidates=(),
        seed=subject.seed,
        data_sha256=dict(subject.evidence.sha256),
        tools=tools,
    )


def _write_card(folder: Path, subject: AnySubject) -> None:
    """The page is made of what is there already: if it cannot be made, nothing else is lost."""
    from trimtab_compressor.report.write import write_card  # noqa: PLC0415 - keeps start fast
    from trimtab_compressor.show import tell  # noqa: PLC0415

    try:
        write_card(folder / "results.json", subject.evidence.calibration)
        tell(f"model card: {folder / 'report.html'}")
    except TrimtabError as error:
        tell(f"no model card: {error.message}")


def _report(
    conditions: RunReport,
    built: Sequence[Built],
    failures: Sequence[tuple[Choice, TrimtabError]],
    *,
    is_complete: bool,
) -> RunReport:
    from trimtab_compressor.run_report import (  # noqa: PLC0415 - keeps start fast
        CandidateResult,
        FailedCandidate,
    )

    found = {
        "candidates": tuple(CandidateResult.of(row, _file_name(row)) for row in built),
        "failures": tuple(
            FailedCandidate.of(row, error.code, error.message) for row, error in failures
        ),
        "is_complete": is_complete,
    }
    return conditions.model_copy(update=found)


def _show(report: RunReport, options: argparse.Namespace) -> None:
    from trimtab_compressor.show import print_built, print_steps  # noqa: PLC0415 - keeps start fast

    if options.json:
        print(report.model_dump_json(indent=2))
        return
    print_built(report)
    if options.steps:
        print_steps(report)


def _file_name(built: Built) -> str:
    return f"{built.choice.recipe}.{built.choice.format.value}"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be made ({error.strerror})") from error
