"""Load a task from its Python file.

The file's folder is on the import path while it runs, so that a task can be split into modules.
Whatever the file does wrong ends in one ConfigError that names the file, and the line if known.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from trimtab_compressor.arrays import digest_file
from trimtab_compressor.task import Task
from trimtab_protocol.errors import ConfigError, TrimtabError


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
    task = getattr(_run(path), "TASK", None)
    if task is None:
        raise ConfigError(f"{path} defines no TASK; end it with TASK = Task(...)")
    if not isinstance(task, Task):
        raise ConfigError(
            f"TASK in {path} is a {type(task).__name__}; it must be a trimtab_compressor.task.Task"
        )
    return replace(task, source_sha256=digest_file(path))


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"trimtab_task_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        with _on_import_path(path.resolve().parent):
            spec.loader.exec_module(module)
    except TrimtabError:
        raise
    except SyntaxError as error:
        raise ConfigError(f"{path}, line {error.lineno}: {error.msg}; correct the file") from error
    except Exception as error:
        raise ConfigError(
            f"{path}{_line_in(path, error)} raised {type(error).__name__}: {error}; correct the file"
        ) from error
    return module


def _line_in(path: Path, error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [row.lineno for row in frames if Path(row.filename).name == path.name]
    return f", line {lines[-1]}," if lines else ""


@contextmanager
def _on_import_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
