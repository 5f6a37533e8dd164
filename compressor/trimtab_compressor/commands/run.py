"""`run`: build and evaluate candidates of a task, and write their files."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_compressor.commands.options import (
    add_recipe_arguments,
    open_cache,
    read_formats,
    write_text,
)
from trimtab_protocol.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trimtab_compressor.build import Builder, Built
    from trimtab_compressor.recipes import Choice

HELP = "build candidates of a task, evaluate them, and write the files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Task, recipes, output."""
    parser.add_argument("task", type=Path, help="Python file that defines TASK")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    add_recipe_arguments(parser)


def run(options: argparse.Namespace) -> None:
    """Build, print the table, write `RECIPE.FORMAT` and `results.json`.

    Raises:
        ConfigError: The task or a recipe is wrong.
        ModelError: A candidate does not compute its network; the others are written.
    """
    from trimtab_compressor.recipes import list_choices  # noqa: PLC0415 - keeps start fast
    from trimtab_compressor.run_report import CandidateResult, RunReport  # noqa: PLC0415
    from trimtab_compressor.show import print_built, tell  # noqa: PLC0415

    choices = list_choices(options.recipe, read_formats(options.format))
    _make_folder(options.out)
    cache = open_cache(options.cache)

    from trimtab_compressor.build import Builder  # noqa: PLC0415 - imports torch
    from trimtab_compressor.task_file import load_task  # noqa: PLC0415

    task = load_task(options.task)
    builder = Builder(task, cache, tell)
    built, failures = build_all(builder, choices)
    for row in built:
        shutil.copyfile(row.path, options.out / _file_name(row))
    report = RunReport(
        task=task.name, candidates=tuple(CandidateResult.of(row, _file_name(row)) for row in built)
    )
    write_text(options.out / "results.json", report.model_dump_json(indent=2))
    print_built(report)
    if failures:
        raise failures[0]


def build_all(builder: Builder, choices: Sequence[Choice]) -> tuple[list[Built], list[ModelError]]:
    """Build every candidate; one that cannot be made does not cost the others."""
    from trimtab_compressor.show import tell  # noqa: PLC0415 - keeps start fast

    built: list[Built] = []
    failures: list[ModelError] = []
    for choice in choices:
        try:
            built.append(builder.build(choice))
        except ModelError as error:
            tell(f"{choice}: cannot be made: {error.message}")
            failures.append(ModelError(f"{choice}: {error.message}", code=error.code))
    return built, failures


def _file_name(built: Built) -> str:
    return f"{built.choice.recipe}.{built.choice.format.value}"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be made ({error.strerror})") from error
