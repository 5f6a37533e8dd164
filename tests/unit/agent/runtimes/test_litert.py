"""The adapter of LiteRT, with a real model."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import pytest

from support.tiny_tflite import make_tflite
from trimtab_agent.runtimes import table
from trimtab_agent.runtimes.base import InputSpec, LoadedModel
from trimtab_agent.runtimes.litert import LiteRt, LiteRtModel
from trimtab_agent.runtimes.table import RUNTIMES, installed_runtimes
from trimtab_protocol.errors import ErrorCode, ModelError
from trimtab_protocol.manifest import RuntimeName

X = numpy.array([[1, 2, 3, 4]], numpy.float32)


def load(tmp_path: Path, content: bytes) -> LoadedModel:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    return LiteRt().load(path, 1, is_spinning_allowed=False)


def test_it_computes_what_the_file_says(tmp_path: Path) -> None:
    model = load(tmp_path, make_tflite(3.0))
    assert model.inputs() == (InputSpec("x", "float32", (1, 4)),)
    model.bind({"x": X})()
    assert (model.outputs()["y"] == X * 3).all()


def test_what_is_fed_stays_fed_over_many_runs(tmp_path: Path) -> None:
    model = load(tmp_path, make_tflite(2.0))
    infer = model.bind({"x": X})
    for _ in range(3):
        infer()
    assert (model.outputs()["y"] == X * 2).all()


@pytest.mark.parametrize("content", [b"", b"garbage", b"\0" * 100])
def test_what_is_no_model_is_a_model_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelError, match="ai-edge-litert cannot load it") as caught:
        load(tmp_path, content)
    assert caught.value.code is ErrorCode.MODEL_LOAD


@pytest.mark.parametrize(
    "feeds", [{"x": numpy.zeros((1, 5), numpy.float32)}, {"x": X.astype(numpy.int8)}, {"z": X}]
)
def test_inputs_that_do_not_fit_are_a_model_error(tmp_path: Path, feeds: Any) -> None:
    with pytest.raises(ModelError, match="input does not fit"):
        load(tmp_path, make_tflite()).bind(feeds)


def test_a_run_that_fails_is_a_model_error() -> None:
    class Broken:
        """An interpreter whose kernel refuses."""

        def get_input_details(self) -> list[Any]:
            return []

        def invoke(self) -> None:
            raise RuntimeError("node 3 failed to invoke")

    with pytest.raises(ModelError, match="node 3") as caught:
        LiteRtModel(Broken()).bind({})()
    assert caught.value.code is ErrorCode.MODEL_CRASH


def test_without_any_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> ModuleType:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(ModelError, match=r"pip install 'trimtab\[tflite\]'"):
        LiteRt()


def test_the_older_package_serves_where_the_newer_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older = ModuleType("tflite_runtime.interpreter")

    def only_older(name: str) -> ModuleType:
        if name.startswith("ai_edge_litert"):
            raise ImportError(name)
        return older

    monkeypatch.setattr(importlib, "import_module", only_older)
    assert LiteRt()._package == "tflite-runtime"


def test_it_says_what_it_is() -> None:
    identity = LiteRt().identity()
    assert identity.package == "ai-edge-litert"
    assert identity.version


def test_every_runtime_of_the_protocol_has_an_adapter_and_what_is_installed_is_found() -> None:
    assert set(RUNTIMES) == set(RuntimeName)
    found = {(row.name, row.package) for row in installed_runtimes()}
    assert (RuntimeName.ONNXRUNTIME, "onnxruntime") in found
    assert (RuntimeName.LITERT, "ai-edge-litert") in found
    assert (RuntimeName.LITERT, "tflite-runtime") not in found


def test_the_version_of_a_runtime_is_the_one_that_its_package_says() -> None:
    found = {row.package: row.version for row in installed_runtimes()}
    assert found == {package: importlib.metadata.version(package) for package in found}


def test_a_runtime_without_the_folder_of_an_installer_is_found_by_its_metadata(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Such as one from a distribution's package, which writes an egg-info."""
    (tmp_path / "tflite_runtime").mkdir()
    (tmp_path / "tflite_runtime" / "__init__.py").touch()
    (tmp_path / "tflite_runtime.egg-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: tflite-runtime\nVersion: 2.5.0\n"
    (tmp_path / "tflite_runtime.egg-info" / "PKG-INFO").write_text(metadata)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setitem(table.MODULES, RuntimeName.LITERT, ("tflite_runtime",))
    found = {(row.package, row.version) for row in installed_runtimes()}
    assert ("tflite-runtime", "2.5.0") in found


def test_what_only_looks_like_the_package_is_not_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """onnxruntime_gpu-1.18.0.dist-info is no onnxruntime, and a left-over folder no runtime."""
    (tmp_path / "onnxruntime_gpu-1.18.0.dist-info").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = {row.package: row.version for row in installed_runtimes()}
    assert found["onnxruntime"] == importlib.metadata.version("onnxruntime")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setitem(table.MODULES, RuntimeName.ONNXRUNTIME, ("no_such_module",))
    assert RuntimeName.ONNXRUNTIME not in {row.name for row in installed_runtimes()}
