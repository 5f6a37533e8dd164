"""Progress over the steps of a run: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trimtab_compressor.show import tell

if TYPE_CHECKING:
    from rich.progress import Progress

    from trimtab_compressor.plan import Step


class LineProgress:
    """One line per step that is computed."""

    def __init__(self) -> None:
        self._done: set[tuple[str, str]] = set()

    def expect(self, steps: int) -> None:
        """How many different steps there are."""
        del steps

    def report(self, line: str) -> None:
        """What is being computed now."""
        tell(line)

    def note(self, line: str) -> None:
        """Something that stays on the screen."""
        tell(line)

    def finish(self, step: Step) -> None:
        """A step is there; steps that candidates share are counted once."""
        self._done.add((step.key, step.suffix))

    @property
    def finished(self) -> int:
        """Different steps so far."""
        return len(self._done)


class BarProgress(LineProgress):
    """A bar over all steps, with the newest line beside it.

    It is drawn only when something happens: converters are kept quiet by moving the descriptors that a
    drawing thread would write to.
    """

    def __init__(self, bar: Progress) -> None:
        super().__init__()
        self._bar = bar
        self._task = bar.add_task("", total=None)

    def expect(self, steps: int) -> None:
        """How many different steps there are."""
        self._bar.update(self._task, total=steps, refresh=True)

    def report(self, line: str) -> None:
        """What is being computed now."""
        self._bar.update(self._task, description=line, refresh=True)

    def note(self, line: str) -> None:
        """Something that stays on the screen, above the bar."""
        self._bar.console.print(line, markup=False, highlight=False)

    def finish(self, step: Step) -> None:
        """A step is there; steps that candidates share are counted once."""
        super().finish(step)
        self._bar.update(self._task, completed=self.finished, refresh=True)


@contextmanager
def show_progress() -> Iterator[LineProgress]:
    """A bar on stderr if that is a terminal, else lines."""
    if not sys.stderr.isatty():
        yield LineProgress()
        return
    from rich.console import Console  # noqa: PLC0415 - only for terminals
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    bar = Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True)
    with bar:
        yield BarProgress(bar)
