"""`make demo`: the whole loop on this machine. See docs/demo.md for what it writes."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from judge import fp32_by_class, list_failures, summarise
from processes import CommandError, Processes
from report import write_report
from result import DemoResult
from rich.console import Console
from story import CLASSES, Story
from table import make_table, show_comparison

from trimtab_compressor.fit_report import FitReport
from trimtab_protocol.errors import TrimtabError

console = Console(highlight=False)
PLAIN_WIDTH = 144
if not console.is_terminal:
    console = Console(highlight=False, width=PLAIN_WIDTH)


@contextmanager
def show_step(title: str) -> Iterator[Callable[[str], None]]:
    """One step with a spinner, or plain lines where there is no terminal."""
    began = time.monotonic()
    newest = [""]
    if not console.is_terminal:
        console.print(f"… {title}")
    with console.status(title) as status:

        def say(line: str) -> None:
            if line.strip():
                newest[0] = line.strip()
                status.update(f"{title}  [dim]{_escape(newest[0])[:90]}[/dim]")
                if not console.is_terminal:
                    console.print(f"    {line}", markup=False)

        yield say
    detail = f"  [dim]{_escape(newest[0])[:100]}[/dim]" if newest[0] else ""
    console.print(f"[green]✓[/green] {title} ({time.monotonic() - began:.0f} s){detail}")


def tell_story(story: Story) -> tuple[str, FitReport]:
    """All steps in order; gives the broker and what the fit found."""
    broker = story.start_fleet()
    fp32 = story.measure_fp32()
    fp32_bytes = next(iter(fp32.values())).size_bytes
    report = story.fit(fp32, fp32_bytes)
    versions = [row.artifact.version for row in report.candidates if row.artifact is not None]
    story.refuse_bad_ones(max(versions))
    return broker, report


def assemble(story: Story, broker: str, report: FitReport, started_at: float) -> DemoResult:
    """The result, judged."""
    fp32 = fp32_by_class(report)
    result = DemoResult(
        is_ok=True,
        failures=(),
        started_at=started_at,
        duration_s=time.time() - started_at,
        broker=broker,
        device_classes=tuple(CLASSES),
        budgets=report.budgets,
        fp32=summarise(report.base, fp32, report.chosen),
        candidates=tuple(summarise(row, fp32, report.chosen) for row in report.candidates),
        chosen=summarise(report.chosen, fp32, report.chosen) if report.chosen else None,
        rollouts=story.rollouts,
    )
    failures = list_failures(result)
    return result.model_copy(update={"is_ok": not failures, "failures": failures})


def main() -> int:
    """Run the demo; 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-out"))
    parser.add_argument("--broker", default="auto", choices=("auto", "mosquitto", "amqtt"))
    options = parser.parse_args()
    out = options.out.resolve()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: sys.exit(143))
    shutil.rmtree(out / "run", ignore_errors=True)
    logs = out / "run" / "logs"
    logs.mkdir(parents=True)
    processes = Processes(
        logs, {"TRIMTAB_CACHE": str(out / "cache"), "ORT_DISABLE_TELEMETRY": "1", "COLUMNS": "120"}
    )
    started_at = time.time()
    try:
        story = Story(out, processes, show_step, options.broker)
        broker, report = tell_story(story)
        result = assemble(story, broker, report, started_at)
    except (CommandError, TrimtabError) as error:
        console.print(f"[red]demo: failed[/red]: {_escape(str(error))}")
        console.print(f"logs: {logs}")
        return 1
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    finally:
        processes.stop_all()
    (out / "result.json").write_text(result.model_dump_json(indent=2))
    write_report(result, out / "report.html")
    console.print(make_table(result))
    for key, row in result.rollouts.items():
        code = f" [{row.error_code.value}]" if row.error_code else ""
        ratios = "".join(f"; {text}" for text in map(show_comparison, row.devices) if text)
        console.print(
            f"rollout {key} ({row.artifact}): {row.state.value}{code}{ratios}", markup=False
        )
    console.print(f"{out / 'result.json'}\n{out / 'report.html'}", markup=False)
    for text in result.failures:
        console.print(f"does not hold: {text}", markup=False)
    console.print("demo: ok" if result.is_ok else "demo: failed")
    return 0 if result.is_ok else 1


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


if __name__ == "__main__":
    sys.exit(main())
