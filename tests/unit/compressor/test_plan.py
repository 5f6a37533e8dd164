"""Plans and their progress, and that every pass that a recipe may name exists."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from trimtab_compressor.passes.table import FILE_PASSES, NETWORK_PASSES
from trimtab_compressor.plan import Step, title_of
from trimtab_compressor.progress import BarProgress, LineProgress, show_progress
from trimtab_compressor.specs.base import FileSpec
from trimtab_compressor.specs.pruning import PruneChannels
from trimtab_compressor.specs.table import SPECS
from trimtab_compressor.specs.training import Train


def make(path: Path) -> None:
    raise AssertionError(f"{path}: nothing is computed here")


STEPS = [
    Step("one", "a", ".pt", make),
    Step("two", "a", ".json", make),
    Step("one", "a", ".pt", make),
]


def test_every_spec_has_a_function_for_every_format_that_it_names() -> None:
    for name, spec in SPECS.items():
        if issubclass(spec, FileSpec):
            assert spec.formats, name
            assert all((name, model_format) in FILE_PASSES for model_format in spec.formats), name
        else:
            assert name in NETWORK_PASSES, name


def test_a_title_says_what_differs_from_the_defaults() -> None:
    assert title_of(Train()) == "train"
    assert title_of(PruneChannels(ratio=0.5), where="onnx") == "prune_channels onnx ratio=0.5"


def test_shared_steps_count_once_on_the_bar() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    with Progress(console=console, auto_refresh=False) as bar:
        progress = BarProgress(bar)
        progress.expect(2)
        progress.report("train")
        progress.note("[not markup] stays")
        for step in STEPS:
            progress.finish(step)
        assert (bar.tasks[0].completed, bar.tasks[0].total) == (2, 2)
        assert bar.tasks[0].description == "train"
    assert "[not markup] stays" in screen.getvalue()


def test_without_a_terminal_there_are_lines_and_no_bar() -> None:
    with show_progress() as progress:
        assert type(progress) is LineProgress
        for step in STEPS:
            progress.finish(step)
        assert progress.finished == 2
