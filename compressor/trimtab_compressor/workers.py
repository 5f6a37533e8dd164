"""Build candidates in other processes, by anything that works like concurrent.futures.

Rules:
    1. A worker is told where things are, not given them: tasks hold functions, which do not travel.
    2. What workers share is the cache, which lets one of them make a step while the others wait for it.
       So the results are those of one process, whatever the number of workers.
    3. A worker that dies ends the run with one error; what was finished stays finished.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import functools
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_compressor.recipe import Choice
from trimtab_compressor.subject import SubjectPaths, open_subject
from trimtab_protocol.errors import (
    ConfigError,
    ErrorCode,
    ModelError,
    TransientError,
    TrimtabError,
    error_from_code,
)
from trimtab_protocol.manifest import ModelFormat

if TYPE_CHECKING:
    from trimtab_compressor.build import Builder, Built

_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent dies."""


@dataclass(frozen=True)
class Workplace:
    """What a worker needs to build any candidate of a run.

    Args:
        subject: Where the subject is.
        recipe_files: As `--recipe-file` named them.
        cache: Folder that all workers see under this path.
        formats: That a Keras model is exported to.
    """

    subject: SubjectPaths
    recipe_files: tuple[Path, ...]
    cache: Path
    formats: tuple[ModelFormat, ...] = tuple(ModelFormat)


@dataclass(frozen=True)
class Failed:
    """An error that travels: exceptions lose their code on the way."""

    code: ErrorCode
    message: str


def build_in_worker(workplace: Workplace, choice: Choice) -> Built | Failed:
    """Build one candidate; runs in a worker."""
    try:
        return _builder(workplace).build(choice)
    except TrimtabError as error:
        return Failed(error.code, error.message)


@functools.lru_cache(maxsize=1)
def _builder(workplace: Workplace) -> Builder:
    """One per worker: loading a task may take longer than a step."""
    from trimtab_compressor.build import Builder  # noqa: PLC0415 - imports torch
    from trimtab_compressor.cache import Cache  # noqa: PLC0415
    from trimtab_compressor.recipe_file import read_book  # noqa: PLC0415

    book, _ = read_book(workplace.recipe_files)
    cache = Cache(workplace.cache)
    subject = open_subject(workplace.subject, workplace.formats, cache, _say_nothing)
    return Builder(subject, cache, _say_nothing, book)


def build_spread(
    executor: concurrent.futures.Executor, workplace: Workplace, choices: Sequence[Choice]
) -> Iterator[tuple[Choice, Built | TrimtabError]]:
    """Build candidates by an executor; each is given when it is finished.

    Raises:
        ConfigError: Workers do not see this cache.
    """
    futures = {executor.submit(build_in_worker, workplace, row): row for row in choices}
    try:
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], _outcome(future.result())
    finally:
        for future in futures:
            future.cancel()


def _outcome(found: Built | Failed) -> Built | TrimtabError:
    if isinstance(found, Failed):
        return error_from_code(found.code, found.message)
    if not found.path.is_file():
        raise ConfigError(
            f"{found.path} was made by a worker and is not here; give a --cache on a file system that "
            "all workers share"
        )
    return found


@contextmanager
def local_processes(jobs: int) -> Iterator[concurrent.futures.Executor]:
    """So many processes on this machine; none of them outlives the block.

    Raises:
        ModelError: `model.crash`: one of them died.
    """
    before = set(multiprocessing.active_children())
    executor = concurrent.futures.ProcessPoolExecutor(
        max_workers=jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare_process,
    )
    try:
        yield executor
    except BrokenProcessPool as error:
        raise _dead_worker("with fewer --jobs") from error
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def dask_cluster(url: str) -> Iterator[concurrent.futures.Executor]:
    """The workers of a Dask scheduler, which must have this package and see the same files.

    Raises:
        ConfigError: Dask is not installed.
        TransientError: Nothing answers at the URL.
        ModelError: `model.crash`: a candidate killed every worker that tried it.
    """
    try:
        from distributed import Client, KilledWorker  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ConfigError(
            "--scheduler needs Dask; install trimtab[dask], or use --jobs",
            code=ErrorCode.CONFIG_MISSING,
        ) from error
    try:
        client = Client(url, timeout="20s")
    except (OSError, ValueError) as error:
        raise TransientError(
            f"no Dask scheduler answers at {url}: {error}; start one with `dask scheduler`",
            code=ErrorCode.TRANSIENT_BUSY,
        ) from error
    with client:
        try:
            yield client.get_executor(pure=False)
        except KilledWorker as error:
            raise _dead_worker("with more memory per worker") from error


def _dead_worker(remedy: str) -> ModelError:
    return ModelError(
        "a worker process died (killed, or out of memory); what was finished is in the cache: run again, "
        f"{remedy}",
        code=ErrorCode.MODEL_CRASH,
    )


def _prepare_process() -> None:
    """Leave Ctrl-C to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _say_nothing(_: str) -> None:
    """The parent says what is finished."""
