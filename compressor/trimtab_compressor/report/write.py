"""Write the card of a run: report.html, beside results.json."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.report.card import ModelCard, SensitivityTable
from trimtab_compressor.report.collect import collect_card
from trimtab_compressor.report.page import render_card
from trimtab_compressor.run_report import RunReport
from trimtab_compressor.runtimes.port import Arrays
from trimtab_protocol.base import describe_validation_error
from trimtab_protocol.errors import ConfigError, ErrorCode

PAGE = "report.html"


def write_card(
    results: Path,
    calibration: Arrays | AnyArray | None,
    target: Path | None = None,
    sensitivities: tuple[SensitivityTable, ...] = (),
) -> ModelCard:
    """Make the page of a run.

    Args:
        results: results.json; the models are beside it.
        calibration: Inputs to look at activations with; None to leave them out.
        target: Where the page goes; None for report.html beside results.json.
        sensitivities: Measured before, by `measure_sensitivities`.

    Raises:
        ConfigError: The results cannot be read, or the page cannot be written.
    """
    card = collect_card(read_results(results), results.parent, calibration)
    card = card.model_copy(update={"sensitivities": sensitivities})
    path = target or results.parent / PAGE
    try:
        path.write_text(render_card(card))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from error
    return card


def read_results(path: Path) -> RunReport:
    """Read what `run` wrote.

    Raises:
        ConfigError: There is no such file, or it is something else.
    """
    try:
        return RunReport.model_validate_json(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path} does not exist; give the results.json that `run` wrote",
            code=ErrorCode.CONFIG_MISSING,
        ) from error
    except (OSError, ValueError) as error:
        reason = describe_validation_error(error) if isinstance(error, ValidationError) else error
        raise ConfigError(f"{path} is no results.json of `run`: {reason}") from error
