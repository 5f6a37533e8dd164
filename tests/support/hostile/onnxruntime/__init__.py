"""Stands in for ONNX Runtime in a child: loading a model crashes, hangs or takes all memory.

Found before the real one when this folder's parent is first on PYTHONPATH; `TRIMTAB_TEST_MODEL_DOES`
says what it does.
"""

from __future__ import annotations

import os
import time

__version__ = "0"

BLOCK_BYTES = 64 * 1024 * 1024
MAX_BLOCKS = 64


def set_default_logger_severity(_severity: int) -> None:
    """As the real one."""


class SessionOptions:
    """As the real one."""

    def add_session_config_entry(self, _key: str, _value: str) -> None:
        """As the real one."""


class InferenceSession:
    """Never comes to be."""

    def __init__(self, *_arguments: object, **_named: object) -> None:
        ENDS[os.environ["TRIMTAB_TEST_MODEL_DOES"]]()


def _hang() -> None:
    time.sleep(3600)


def _take_all_memory() -> None:
    taken = [bytearray(BLOCK_BYTES) for _ in range(MAX_BLOCKS)]
    raise RuntimeError(f"there was no limit below {len(taken) * BLOCK_BYTES} bytes")


ENDS = {"crash": os.abort, "hang": _hang, "memory": _take_all_memory}
