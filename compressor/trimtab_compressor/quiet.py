"""Keep the chatter of converters off the terminal; show it when they fail."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator

_NOISY_LOGGERS = (
    "torch.onnx",
    "torchao",
    "onnxscript",
    "onnx_ir",
    "absl",
    "jax",
    "litert_torch",
    "root",
)
_SHOWN_BYTES = 2000


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send file descriptors 1 and 2 to a file while the body runs.

    Native code writes past `sys.stderr`, so nothing less than the descriptors will do. If the body
    raises, the last lines go into the exception's notes. Log levels are put back afterwards: they
    belong to whoever shares this process.
    """
    loggers = [logging.getLogger(None if name == "root" else name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as log, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        except BaseException as error:
            error.add_note(_tail(log.fileno()))
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, original in zip((1, 2), saved, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _tail(descriptor: int) -> str:
    length = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, max(0, length - _SHOWN_BYTES), os.SEEK_SET)
    return os.read(descriptor, _SHOWN_BYTES).decode(errors="replace")
