"""The adapter of ONNX Runtime, with real models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import onnx
import pytest
from onnx import TensorProto, helper

from support.tiny_models import make_onnx
from trimtab_agent.runtimes.base import InputSpec, LoadedModel
from trimtab_agent.runtimes.onnx_runtime import OnnxRuntime
from trimtab_protocol.errors import ErrorCode, ModelError

X = numpy.array([[1, 2, 3, 4]], numpy.float32)


def load(tmp_path: Path, content: bytes, threads: int = 1) -> LoadedModel:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    return OnnxRuntime().load(path, threads, is_spinning_allowed=False)


def a_model_with(type_: int, shape: list[int | str | None]) -> bytes:
    value = helper.make_tensor_value_info("x", type_, shape)
    answer = helper.make_tensor_value_info("y", type_, shape)
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [answer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_it_computes_what_the_file_says(tmp_path: Path) -> None:
    model = load(tmp_path, make_onnx(3.0))
    assert model.inputs() == (InputSpec("x", "float32", (1, 4)),)
    model.bind({"x": X})()
    assert (model.outputs()["y"] == X * 3).all()


def test_outputs_are_those_of_the_newest_run(tmp_path: Path) -> None:
    model = load(tmp_path, make_onnx(2.0))
    first, second = model.bind({"x": X}), model.bind({"x": X + 1})
    second()
    first()
    assert (model.outputs()["y"] == X * 2).all()


@pytest.mark.parametrize("content", [b"", b"garbage", make_onnx()[:-40]])
def test_what_is_no_model_is_a_model_error_with_the_librarys_own_words(
    tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(ModelError, match="ONNX Runtime cannot load it: ") as caught:
        load(tmp_path, content)
    assert caught.value.code is ErrorCode.MODEL_LOAD


def test_a_file_that_is_missing_does_not_load(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        OnnxRuntime().load(tmp_path / "none.onnx", 1, is_spinning_allowed=True)


@pytest.mark.parametrize("feeds", [{"x": numpy.zeros((1, 5), numpy.float32)}, {"z": X}])
def test_inputs_that_do_not_fit_are_a_model_error(tmp_path: Path, feeds: Any) -> None:
    model = load(tmp_path, make_onnx())
    with pytest.raises(ModelError, match="cannot run it") as caught:
        model.bind(feeds)()
    assert caught.value.code is ErrorCode.MODEL_CRASH


@pytest.mark.parametrize("shape", [[None, 3], ["batch", 3], [1, 3]])
def test_a_free_dimension_is_run_as_one(tmp_path: Path, shape: list[int | str | None]) -> None:
    model = load(tmp_path, a_model_with(TensorProto.INT64, shape))
    assert model.inputs() == (InputSpec("x", "int64", (1, 3)),)


def test_an_input_of_a_type_that_cannot_be_fed_is_said(tmp_path: Path) -> None:
    model = load(tmp_path, a_model_with(TensorProto.STRING, [1, 3]))
    with pytest.raises(ModelError, match=r"input x .* tensor\(string\)"):
        model.inputs()


@pytest.mark.parametrize("is_spinning_allowed", [True, False])
def test_threads_and_spinning_are_what_was_asked_for(
    tmp_path: Path, is_spinning_allowed: bool
) -> None:
    runtime = OnnxRuntime()
    path = tmp_path / "model.onnx"
    path.write_bytes(make_onnx())
    model = runtime.load(path, 2, is_spinning_allowed=is_spinning_allowed)
    options = model._session.get_session_options()  # type: ignore[attr-defined]  # the adapter hides it, a user need not see it
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1
    entry = options.get_session_config_entry("session.intra_op.allow_spinning")
    assert entry == ("1" if is_spinning_allowed else "0")


def test_it_says_what_it_is() -> None:
    identity = OnnxRuntime().identity()
    assert identity.package == "onnxruntime"
    assert identity.version.count(".") == 2
    assert identity.providers == ("CPUExecutionProvider",)


def test_memory_that_python_itself_did_not_get_is_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its MemoryError has no words."""
    runtime = OnnxRuntime()

    def refuse(*_arguments: object, **_named: object) -> None:
        raise MemoryError

    monkeypatch.setattr(runtime._library, "InferenceSession", refuse)
    with pytest.raises(ModelError) as caught:
        runtime.load(tmp_path / "model.onnx", 1, is_spinning_allowed=False)
    assert caught.value.code is ErrorCode.MODEL_MEMORY
