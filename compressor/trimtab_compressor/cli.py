"""`trimtab-compressor`: make candidates, package them, and fit them to devices.

Exit codes: 0 done; 2 wrong input or settings, a control plane that cannot be reached, or nothing
keeps the budget; 130 interrupted; 1 the rest. An error is one line on stderr, `error: [code] message`; standard output carries results only.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from trimtab_compressor.commands import (
    compare,
    fit,
    inspect,
    keys,
    package,
    push,
    recipes,
    report,
    rescue,
    run,
)
from trimtab_protocol.errors import (
    ConfigError,
    ErrorCode,
    ProtocolError,
    RejectedError,
    TransientError,
    TrimtabError,
)

COMMANDS = {
    "keys": keys,
    "recipes": recipes,
    "inspect": inspect,
    "compare": compare,
    "run": run,
    "rescue": rescue,
    "report": report,
    "package": package,
    "push": push,
    "fit": fit,
}

EXIT_INPUT, EXIT_FAILED, EXIT_INTERRUPTED = 2, 1, 130
EXIT_PIPE = 128 + signal.SIGPIPE


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="trimtab-compressor",
        description="Compress a model, measure it on the real device, and keep what was measured.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        child = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(child)
        child.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()  # so that a closed pipe is noticed here, not while Python ends
    except BrokenPipeError:
        # The reader, such as `head`, has enough; what is left goes nowhere, quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except TrimtabError as error:
        print(f"error: [{error.code.value}] {error.message}", file=sys.stderr)
        return EXIT_INPUT if is_input_error(error) else EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted; what was finished is in the cache", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def is_input_error(error: TrimtabError) -> bool:
    """Whether the person can mend it: what they gave, or where they pointed."""
    is_unreadable = error.code is ErrorCode.MODEL_UNREADABLE
    return is_unreadable or isinstance(
        error, ConfigError | ProtocolError | RejectedError | TransientError
    )


if __name__ == "__main__":
    sys.exit(main())
