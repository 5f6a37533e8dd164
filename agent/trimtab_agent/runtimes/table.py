"""Which runtimes there are, and which of them are installed (without importing any)."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

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


MODULES: dict[RuntimeName, tuple[str, ...]] = {
    RuntimeName.ONNXRUNTIME: ("onnxruntime",),
    RuntimeName.LITERT: ("ai_edge_litert", "tflite_runtime"),
}


def installed_runtimes() -> tuple[RuntimeFact, ...]:
    """The runtimes that are installed, from the packages' metadata."""
    return tuple(fact for name in RUNTIMES for fact in _installed(name))


def _installed(name: RuntimeName) -> list[RuntimeFact]:
    """By the folders that installers write, and by the library for them where there is another way.

    The library takes 2 MB, which the resident process would keep.
    """
    if not any(importlib.util.find_spec(module) for module in MODULES[name]):
        return []
    for version_of in (_version_by_folder, _version_by_metadata):
        found = [
            RuntimeFact(name=name, version=version, package=package)
            for package in DISTRIBUTIONS[name]
            if (version := version_of(package)) is not None
        ]
        if found:
            return found
    return []


def _version_by_folder(package: str) -> str | None:
    """From the name {package}-{version}.dist-info (PyPA, "Recording installed projects")."""
    stem = package.replace("-", "_")
    for place in sys.path:
        for folder in Path(place).glob(f"{stem}-*.dist-info"):
            return folder.name.removeprefix(f"{stem}-").removesuffix(".dist-info")
    return None


def _version_by_metadata(package: str) -> str | None:
    import importlib.metadata  # noqa: PLC0415 - see `_installed`

    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
