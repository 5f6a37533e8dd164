"""What is passed to the process that profiles; what comes back is an OperatorProfile."""

from __future__ import annotations

from enum import Enum

from trimtab_protocol.base import WireModel
from trimtab_protocol.manifest import Golden, RuntimeName


class KernelMode(str, Enum):
    """Which kernels LiteRT is to use; ONNX Runtime has but one set."""

    DELEGATE = "delegate"  # XNNPACK, as in the timed runs
    BUILTIN = "builtin"  # LiteRT's own: other times, but the node indices of the file


class ProfileJob(WireModel):
    """One model to be profiled.

    Args:
        budget_s: Seconds that the profiled runs may take.
    """

    runtime: RuntimeName
    model_path: str
    threads: int
    mode: KernelMode = KernelMode.DELEGATE
    is_spinning_allowed: bool = False
    affinity: tuple[int, ...] = ()
    max_memory_bytes: int = 0
    golden: Golden | None = None
    timed_p50_ms: float | None = None
    budget_s: float = 10.0
