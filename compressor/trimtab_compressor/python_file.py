"""Run a Python file that a person gave: a task, or recipes.

The file's folder is on the import path while it runs, so that it can be split into modules.
Whatever the file does wrong ends in one ConfigError that names the file, and the line if known.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from trimtab_protocol.errors import ConfigError, TrimtabError


def run_python_file(path: Path, kind: str) -> ModuleType:
    """Run a file as a module of its own.

    Args:
        path: Of an existing file.
        kind: What it is, such as "task"; part of the module's name.

    Raises:
        ConfigError: The file does not run.
        TrimtabError: As the file raised it.
    """
    spec = importlib.util.spec_from_file_location(f"trimtab_{kind}_{path.stem}", path)
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
