"""Which runtimes there are, and which of them are installed (without importing any)."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable

from trimtab_agent.runtimes.base import Runtime
from trimtab_agent.runtimes.litert import LiteRt
from trimtab_agent.runtimes.onnx_runtime import OnnxRuntime
from trimtab_protocol.manifest import RuntimeName
from trimtab_protocol.messages import RuntimeFact

RUNTIMES: dict[RuntimeName, Callable[[], Runtime]] = {
    RuntimeName.ONNXRUNTIME: OnnxRuntime,
    RuntimeName.LITERT: LiteRt,
}

DISTRIBUTIONS: dict[RuntimeName, tuple[str, ...]] = {
    RuntimeName.ONNXRUNTIME: ("onnxruntime", "onnxruntime-gpu"),
    RuntimeName.LITERT: ("ai-edge-litert", "tflite-runtime"),
}


def installed_runtimes() -> tuple[RuntimeFact, ...]:
    """The runtimes that are installed, from the packages' metadata."""
    return tuple(
        RuntimeFact(name=name, version=version, package=package)
        for name, packages in DISTRIBUTIONS.items()
        for package in packages
        if (version := _version_of(package)) is not None
    )


def _version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
