"""Load a task from its Python file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trimtab_compressor.arrays import digest_file
from trimtab_compressor.python_file import run_python_file
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError


def load_task(path: Path) -> Task:
    """Run a task file and take its TASK.

    Raises:
        ConfigError: The file is missing, does not run, or defines no valid TASK.
        TransientError: The task's data could not be fetched; try again.
    """
    if not path.is_file():
        raise ConfigError(f"task file {path} does not exist; give the path of a Python file")
    if path.suffix != ".py":
        raise ConfigError(f"task file {path} is not a Python file; its name must end in .py")
    task = getattr(run_python_file(path, "task"), "TASK", None)
    if task is None:
        raise ConfigError(f"{path} defines no TASK; end it with TASK = Task(...)")
    if not isinstance(task, Task):
        raise ConfigError(
            f"TASK in {path} is a {type(task).__name__}; it must be a trimtab_compressor.task.Task"
        )
    return replace(task, source_sha256=digest_file(path))
