"""What stands between the agent and a hook: ask to die with the agent, then become the hook.

python -m trimtab_agent.hook_child AGENT_PID PATH ARGUMENTS...
"""

from __future__ import annotations

import os
import sys

from trimtab_agent.processes import die_with_parent

EXIT_CANNOT_EXECUTE = 126
"""As a shell says it."""


def main(arguments: list[str]) -> int:
    """Become the hook; comes back only if that is not possible."""
    die_with_parent(int(arguments[0]))
    try:
        os.execv(arguments[1], arguments[1:])  # noqa: S606 - a file of the device's owner
    except OSError as error:
        print(f"cannot execute {arguments[1]}: {error.strerror}", file=sys.stderr)
        return EXIT_CANNOT_EXECUTE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
