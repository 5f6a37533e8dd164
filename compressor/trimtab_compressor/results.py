"""Read and write what steps leave in the cache: outputs, notes, judgements."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.cache import Cache
from trimtab_compressor.passes.stage import Findings
from trimtab_compressor.plan import Step
from trimtab_protocol.errors import ErrorCode, ModelError, TrimtabError

NOTE = ".note.json"
ResultT = TypeVar("ResultT")


def path_of(cache: Cache, step: Step) -> Path:
    """Where a step's result is, once it is there."""
    return cache.path(step.key, step.suffix)


def save_outputs(outputs: Sequence[AnyArray], path: Path) -> None:
    """Write a model's outputs, in its order."""
    np.savez(path, **{str(at): rows for at, rows in enumerate(outputs)})  # type: ignore[arg-type]


def load_outputs(path: Path) -> tuple[AnyArray, ...]:
    """What `save_outputs` wrote."""
    with np.load(path, allow_pickle=False) as saved:
        return tuple(saved[str(at)] for at in range(len(saved.files)))


def run_pass(name: str, call: Callable[[], ResultT]) -> ResultT:
    """Run a pass, which runs the person's network and other projects' code.

    Raises:
        ModelError: It raised something that is not ours.
        TrimtabError: As the pass raised it.
    """
    try:
        return call()
    except TrimtabError:
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise ModelError(
            f"{name} failed with {type(error).__name__}: {first}", code=ErrorCode.MODEL_UNREADABLE
        ) from error


def write_note(cache: Cache, key: str, started: float, findings: Findings) -> None:
    """Keep beside a result what is not in it: how long it took, and what the pass found out."""
    note = {"seconds": round(time.monotonic() - started, 3), "findings": dict(findings)}
    cache.path(key, NOTE).write_text(json.dumps(note))


def read_note(cache: Cache, key: str) -> dict[str, Any]:
    """What `write_note` wrote, or nothing."""
    path = cache.path(key, NOTE)
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found
