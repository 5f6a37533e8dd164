"""The command `trimtab-deploy`. Heavy imports happen in the commands, so `--help` is instant.

Exit codes: 0 done; 2 bad input, refused or not reachable (one line on stderr); 3 a rollout that was
waited for did not commit, or a trial gave no measurement; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from trimtab_deploy.cli_parser import make_parser
from trimtab_protocol.errors import TrimtabError

EXIT_ERROR, EXIT_INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name; None for those of the process.

    Returns:
        The exit code; see the module.
    """
    chosen = make_parser().parse_args(arguments)
    try:
        return _run(chosen)
    except TrimtabError as error:
        sys.stderr.write(f"error: [{error.code.value}] {' '.join(error.message.split())}\n")
        return EXIT_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(chosen: argparse.Namespace) -> int:
    module_name, function_name = chosen.run.split(":")
    module = importlib.import_module(f"trimtab_deploy.commands.{module_name}")
    return int(getattr(module, function_name)(chosen))


if __name__ == "__main__":
    sys.exit(main())
