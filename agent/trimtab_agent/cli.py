"""`trimtab-agent run | measure | status | doctor`.

Exit codes: 0 done, 1 the disk failed (doctor: something is missing), 2 the settings, the model or
the input are wrong, 130 Ctrl-C (143 SIGTERM, 129 SIGHUP), 141 the reader of the output closed it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from trimtab_protocol.errors import ConfigError, ModelError, RejectedError, TrimtabError

Number = TypeVar("Number", int, float)

DEFAULT_MAX_PROCESS_S = 120.0
"""Seconds of a process beside its timed ones: the start, warm-up, and runs of a slow model."""

DEFAULT_CONFIG = "/etc/trimtab/agent.toml"


def main(argv: list[str] | None = None) -> int:
    """Entry point; turns every error of ours into one line and an exit code."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        code = command(arguments)
        sys.stdout.flush()  # so that a closed pipe is noticed here, not while Python ends
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has enough; what is left goes nowhere, quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except TrimtabError as error:
        print(f"error: [{error.code.value}] {error.message}", file=sys.stderr)
        is_input = isinstance(error, ConfigError | RejectedError | ModelError)
        return 2 if is_input else 1
    else:
        return code


def run(arguments: argparse.Namespace) -> int:
    """The resident agent; ends with SIGTERM or SIGINT."""
    from trimtab_agent.lean import stay_small  # noqa: PLC0415

    stay_small()  # before pydantic and paho are imported
    from trimtab_agent import bootstrap  # noqa: PLC0415 - `--help` and `status` need no paho
    from trimtab_agent.config import load_config  # noqa: PLC0415
    from trimtab_agent.events import Stop  # noqa: PLC0415

    loaded = load_config(arguments.config)
    bootstrap.configure_logging(loaded.config.log_level)
    lock = bootstrap.lock_state_dir(loaded.state_dir)
    feed = bootstrap.make_meter_feed(loaded)  # its file is there before the sensors are looked for
    daemon, events = bootstrap.build_daemon(loaded)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: events.put(Stop()))
    with feed:
        daemon.run()
    del lock  # held until here
    return 0


def measure(arguments: argparse.Namespace) -> int:
    """Measure a model file on this machine, without any broker."""
    from trimtab_agent.by_hand import measure_file, settings_by_hand  # noqa: PLC0415
    from trimtab_agent.tables import ProgressBar, render_measured  # noqa: PLC0415
    from trimtab_protocol.measurement import MeasureSpec  # noqa: PLC0415

    spec = MeasureSpec(
        processes=arguments.processes,
        min_runs=arguments.min_runs,
        min_steady_s=arguments.seconds,
        max_process_s=arguments.max_process_s or DEFAULT_MAX_PROCESS_S + arguments.seconds,
        paced_period_ms=arguments.paced_ms,
        energy_windows=0 if arguments.no_energy else arguments.energy_windows,
        is_profiled=arguments.profile,
    )
    settings = settings_by_hand(
        threads=arguments.threads,
        is_spinning_allowed=arguments.spinning,
        samples_dir=arguments.samples,
        meter=arguments.meter,
    )
    with _ended_by_signals(), ProgressBar() as bar:
        found = measure_file(
            arguments.model,
            spec,
            settings=settings,
            against=arguments.against,
            on_progress=bar,
        )
    records = [record for record in (found.measurement, found.against) if record is not None]
    if arguments.samples is not None and not all(record.are_samples_kept for record in records):
        print(f"warning: the samples could not be written to {arguments.samples}", file=sys.stderr)
    if not arguments.json:
        print(render_measured(found))
    elif found.against is None:
        print(found.measurement.model_dump_json(indent=2))
    else:
        print(found.model_dump_json(indent=2))
    return 0


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM, and SIGHUP when a terminal is closed, unwind as Ctrl-C does: files are removed."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def status(arguments: argparse.Namespace) -> int:
    """What is active on this device, from its state folder."""
    from trimtab_agent.by_hand import read_status  # noqa: PLC0415

    print(read_status(arguments.config, as_json=arguments.json))
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """What this device lacks for honest measurements, and how to mend it."""
    from trimtab_agent import doctor as checks  # noqa: PLC0415
    from trimtab_agent.pi_firmware import firmware_asker  # noqa: PLC0415

    findings = checks.examine(checks.Device(ask=firmware_asker()), arguments.config)
    print(checks.render_json(findings) if arguments.json else checks.render(findings))
    return 0 if checks.is_healthy(findings) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trimtab-agent", description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("run", help="the resident agent")
    one.add_argument("--config", type=Path, default=Path(DEFAULT_CONFIG))
    one.set_defaults(command=run)
    one = commands.add_parser("measure", help="measure a model file on this machine")
    one.add_argument("model", type=Path, help="a .onnx or .tflite file")
    one.add_argument("--threads", type=_between(1, 256, int), default=1)
    one.add_argument(
        "--processes", type=_between(1, 50, int), default=5, help="fresh processes (default 5)"
    )
    one.add_argument(
        "--seconds", type=_between(0, 600, float), default=2.0, help="timed seconds per process"
    )
    one.add_argument(
        "--min-runs",
        type=_between(11, 1_000_000, int),
        default=200,
        help="timed runs per process, at least (default 200; fewer for a slow model)",
    )
    one.add_argument(
        "--max-process-s",
        type=_between(1, 3600, float),
        metavar="S",
        help="a process that takes longer fails (default 120 and the timed seconds)",
    )
    one.add_argument(
        "--against", type=Path, metavar="OTHER", help="measure this file too, interleaved"
    )
    one.add_argument(
        "--paced-ms",
        type=_between(1, 60_000, float),
        metavar="T",
        help="also time one inference per T milliseconds, as an application with a frame rate does",
    )
    one.add_argument("--profile", action="store_true", help="which operators take the time")
    one.add_argument(
        "--energy-windows",
        type=_between(1, 50, int),
        default=5,
        metavar="N",
        help="windows of load where there is a sensor (default 5, of 10 s and more)",
    )
    one.add_argument(
        "--meter", type=Path, metavar="FILE", help="of a power meter outside: lines of time, watts"
    )
    one.add_argument("--no-energy", action="store_true", help="leave the energy windows out")
    one.add_argument(
        "--samples", type=Path, metavar="DIR", help="keep raw nanoseconds here, as .npy files"
    )
    one.add_argument("--spinning", action="store_true", help="let idle runtime threads spin")
    one.add_argument("--json", action="store_true")
    one.set_defaults(command=measure)
    one = commands.add_parser("status", help="what is active on this device")
    one.add_argument("--config", type=Path, default=Path(DEFAULT_CONFIG))
    one.add_argument("--json", action="store_true")
    one.set_defaults(command=status)
    one = commands.add_parser(
        "doctor",
        help="what this device lacks, why it matters, and the command that mends it",
        epilog="It changes nothing. Exit code 0 when nothing is missing (advice does not count), else 1.",
    )
    one.add_argument("--config", type=Path, help="also check these settings, and reach the broker")
    one.add_argument("--json", action="store_true")
    one.set_defaults(command=doctor)
    return parser


def _between(low: Number, high: Number, kind: Callable[[str], Number]) -> Callable[[str], Number]:
    """What MeasureSpec allows, said in the words of the command line."""

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be from {low} to {high}, found {text}")
        return value

    return parse


if __name__ == "__main__":
    sys.exit(main())
