"""`trimtab-agent` that stops itself (SIGSTOP) before one step on its disk, so that a kill -9 finds it there.

    STOP_IN=activating STOP_AT=0 python -m support.stopping_agent run --config agent.toml

It stops before the `STOP_AT`-th step after the journal of the deployment `STOP_FOR` said this state.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from trimtab_agent import bootstrap
from trimtab_agent.cli import main
from trimtab_agent.disk import Disk

seen = 0


def stop_there(_step: str, path: Path) -> None:
    """Before every step on the disk."""
    global seen  # noqa: PLW0603 - one process, one count
    root = next(folder for folder in (path, *path.parents) if folder.name == "state")
    if _state(root) != (os.environ["STOP_FOR"], os.environ["STOP_IN"]):
        return
    if seen == int(os.environ["STOP_AT"]):
        os.kill(os.getpid(), signal.SIGSTOP)
    seen += 1


def _state(root: Path) -> tuple[str, str]:
    try:
        record = json.loads((root / "records" / "digits.json").read_bytes())["deployment"]
    except FileNotFoundError:
        return "", ""
    return record["deployment_id"], record["state"]


if __name__ == "__main__":
    bootstrap.Disk = lambda: Disk(stop_there)  # type: ignore[assignment,misc,attr-defined]
    sys.exit(main())
