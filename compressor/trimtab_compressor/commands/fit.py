"""`fit`: find the gentlest recipe that keeps the budget on real devices."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_compressor.commands.options import (
    add_recipe_arguments,
    add_server_arguments,
    open_cache,
    open_control_plane,
    read_formats,
    read_name,
    read_recipes,
    write_text,
)
from trimtab_compressor.commands.subject import add_subject_arguments, read_subject_paths
from trimtab_protocol.errors import ConfigError, ErrorCode, RejectedError

if TYPE_CHECKING:
    from trimtab_compressor.build import Builder
    from trimtab_compressor.client import HttpControlPlane
    from trimtab_compressor.fit import FitPlan
    from trimtab_compressor.fit_report import FitReport
    from trimtab_compressor.recipe_book import RecipeBook
    from trimtab_compressor.subject import AnySubject
    from trimtab_protocol.measurement import MeasureSpec
    from trimtab_protocol.messages import Policy

HELP = "find the gentlest recipe that keeps a budget on real devices"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Task, classes, budgets, how to measure, what to do with the result."""
    add_subject_arguments(parser)
    parser.add_argument(
        "--class",
        dest="classes",
        action="append",
        required=True,
        metavar="CLASS",
        help="device class, repeatable",
    )
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        help="METRIC=LIMIT or CLASS:METRIC=LIMIT, repeatable",
    )
    parser.add_argument("--max-drop", type=float, help="of accuracy; 0.005 is half a point")
    parser.add_argument("--key", required=True, type=Path, help="private key file")
    parser.add_argument("--name", help="of the artifacts; default: the task's name")
    add_recipe_arguments(parser)
    add_server_arguments(parser)
    parser.add_argument(
        "--measure-all",
        action="store_true",
        help="measure every candidate, also after the first that passed",
    )
    parser.add_argument("--rollout", action="store_true", help="roll the chosen one out")
    parser.add_argument("--probation-s", type=float, default=60.0)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the chosen model here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report here")
    measure = parser.add_argument_group("how much each trial measures")
    measure.add_argument("--processes", type=int)
    measure.add_argument("--min-runs", type=int)
    measure.add_argument("--min-steady-s", type=float)
    measure.add_argument("--warm-up-s", type=float)
    measure.add_argument("--paced-period-ms", type=float, help="also one inference per period")
    measure.add_argument(
        "--energy-windows", type=int, help="where a device has a sensor (default 5; 0 for none)"
    )


def run(options: argparse.Namespace) -> None:
    """Fit, print the table, write the report.

    Raises:
        ConfigError: An argument or the task is wrong.
        RejectedError: Nothing keeps the budget, or the devices refused the rollout.
        TransientError: The control plane cannot be reached.
    """
    from trimtab_compressor.show import print_fit, tell  # noqa: PLC0415 - keeps start fast

    _check_outputs(options)
    with open_control_plane(options) as plane:
        subject, book, plan = read_plan(options)

        from trimtab_compressor.build import Builder  # noqa: PLC0415 - imports torch
        from trimtab_compressor.fit import Fit  # noqa: PLC0415

        builder = Builder(subject, open_cache(options.cache), tell, book)
        report = Fit(plan, subject, builder, plane, tell).run()
        print_fit(report)
        if options.json is not None:
            write_text(options.json, report.model_dump_json(indent=2))
        if options.out is not None and report.chosen is not None:
            _write_chosen(options.out, report, plane, builder)
    check_result(report)


def read_plan(options: argparse.Namespace) -> tuple[AnySubject, RecipeBook, FitPlan]:
    """Turn the arguments into a plan, checked before anything slow begins.

    Raises:
        ConfigError: An argument or the task is wrong.
    """
    from trimtab_compressor.budgets import parse_budgets  # noqa: PLC0415 - keeps start fast
    from trimtab_compressor.fit import FitPlan  # noqa: PLC0415
    from trimtab_compressor.keys import read_private_key  # noqa: PLC0415
    from trimtab_compressor.publish import ArtifactPlan  # noqa: PLC0415
    from trimtab_compressor.show import tell  # noqa: PLC0415
    from trimtab_compressor.subject import open_subject, read_choices  # noqa: PLC0415

    classes = tuple(read_name(row, "--class") for row in dict.fromkeys(options.classes))
    if options.name is not None:
        read_name(options.name, "--name")
    budgets = parse_budgets(options.budget, classes, options.max_drop)
    book, names = read_recipes(options)
    formats = read_formats(options.format)
    book.choices(names, formats)  # a misspelt name is found before a task is loaded
    private_key = read_private_key(options.key)
    measure = read_measure_spec(options)
    policy = read_policy(options, measure)
    subject = open_subject(read_subject_paths(options), formats, open_cache(options.cache), tell)
    choices, _ = read_choices(book, names, formats, subject)
    plan = FitPlan(
        choices=choices,
        budgets=budgets,
        artifact=ArtifactPlan(
            name=options.name or subject.name, private_key=private_key, budgets=budgets
        ),
        measure=measure,
        measures_all=options.measure_all,
        rolls_out=options.rollout,
        policy=policy,
    )
    return subject, book, plan


def read_measure_spec(options: argparse.Namespace) -> MeasureSpec:
    """What of MeasureSpec was given, over its defaults.

    Raises:
        ConfigError: A value is out of range.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - keeps start fast

    from trimtab_protocol.base import describe_validation_error  # noqa: PLC0415
    from trimtab_protocol.measurement import MeasureSpec  # noqa: PLC0415

    names = (
        *("processes", "min_runs", "min_steady_s", "warm_up_s"),
        *("paced_period_ms", "energy_windows"),
    )
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    try:
        return MeasureSpec(**given)
    except ValidationError as error:
        raise ConfigError(f"how to measure: {describe_validation_error(error)}") from error


def read_policy(options: argparse.Namespace, measure: MeasureSpec) -> Policy:
    """How a rollout is carried out.

    Raises:
        ConfigError: A value is out of range.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - keeps start fast

    from trimtab_protocol.base import describe_validation_error  # noqa: PLC0415
    from trimtab_protocol.messages import Policy  # noqa: PLC0415

    try:
        return Policy(probe=measure, probation_s=options.probation_s)
    except ValidationError as error:
        raise ConfigError(f"--rollout: {describe_validation_error(error)}") from error


def check_result(report: FitReport) -> None:
    """Turn a result that is not what was asked for into an error.

    Raises:
        RejectedError: Nothing keeps the budget, or the devices refused the rollout.
    """
    from trimtab_compressor.verdicts import explain_failure  # noqa: PLC0415 - keeps start fast
    from trimtab_protocol.rollout import RolloutState  # noqa: PLC0415

    if report.chosen is None:
        raise RejectedError(
            explain_failure(report.candidates, report.budgets), code=ErrorCode.REJECTED_BUDGET
        )
    if report.rollout_state not in (None, RolloutState.COMMITTED):
        raise RejectedError(
            f"rollout {report.rollout_id} of {report.chosen.artifact} ended as "
            f"{report.rollout_state.value}: {report.rollout_reason}"
        )


def _check_outputs(options: argparse.Namespace) -> None:
    if options.json is not None and not options.json.resolve().parent.is_dir():
        raise ConfigError(f"--json {options.json}: its folder does not exist; make it first")


def _write_chosen(
    folder: Path, report: FitReport, plane: HttpControlPlane, builder: Builder
) -> None:
    """Write the chosen model and its manifest, as the control plane has it."""
    from trimtab_compressor.package import PackagedArtifact, write_artifact  # noqa: PLC0415
    from trimtab_compressor.recipes import Choice  # noqa: PLC0415

    assert report.chosen is not None
    built = builder.build(Choice(report.chosen.recipe, report.chosen.format))
    known = plane.list_artifacts(report.name)
    signed = next(row.signed for row in known if row.ref == report.chosen.artifact)
    write_artifact(PackagedArtifact(signed, built.path), folder)
