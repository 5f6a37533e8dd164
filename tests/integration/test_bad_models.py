"""Files that are no good models, in a real child with the real runtime, on a device that has one.

Each is one clear error with its code, and the device keeps what it had.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import onnx
import pytest
from onnx import TensorProto, helper

from support.agent_rig import AgentRig, SimulatedChildren
from support.artifacts import TEST_PRIVATE_KEY, make_manifest
from support.tiny_models import make_onnx, make_real_artifact
from support.tiny_tflite import make_tflite
from trimtab_agent.measure.child import run_job
from trimtab_agent.measure.jobs import JobKind, JobResult
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import Golden, GoldenVector, Manifest, ModelFormat, RuntimeName
from trimtab_protocol.messages import RuntimeFact
from trimtab_protocol.signing import sign_manifest
from trimtab_protocol.tensors import InlineTensor, pack_tensor

X = numpy.array([[1, 2, 3, 4]], numpy.float32)


class RealChildren(SimulatedChildren):
    """Children that really load the model and run its golden vectors, and measure nothing."""

    def finish(self) -> JobResult:
        job = self.started[0]
        checked = run_job(job.model_copy(update={"kind": JobKind.CHECK}))
        if checked.error_code is not None:
            self.started.popleft()
            return checked
        return super().finish()


@pytest.fixture
def rig(tmp_path: Path) -> AgentRig:
    """A device on which digits@1 is committed."""
    rig = AgentRig(tmp_path)
    rig.children = RealChildren()
    rig.runtimes += (RuntimeFact(name=RuntimeName.LITERT, version="2.3.0"),)
    rig.start()
    rig.desire(*make_real_artifact(1))
    rig.settle()
    assert str(rig.active()) == "digits@1"
    return rig


def tensor(values: numpy.ndarray[Any, Any]) -> InlineTensor:
    return pack_tensor(str(values.dtype), values.shape, values.tobytes())  # type: ignore[arg-type]  # the names are DType's


def golden(x: InlineTensor, y: InlineTensor, name: str = "x") -> Golden:
    return Golden(vectors=(GoldenVector(inputs={name: x}, outputs={"y": y}),), max_abs_error=1e-5)


GOOD = golden(tensor(X), tensor(X * 2))


def with_shape(shape: list[int | str]) -> bytes:
    """y = 2 x, with an input of this shape."""
    two = onnx.numpy_helper.from_array(numpy.array([2], numpy.float32), "scale")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [two],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def with_opset(version: int) -> bytes:
    model = onnx.load_from_string(make_onnx())
    model.opset_import[0].version = version
    return bytes(model.SerializeToString())


def deploy(
    rig: AgentRig,
    payload: bytes,
    *,
    vectors: Golden = GOOD,
    model_format: ModelFormat = ModelFormat.ONNX,
) -> None:
    manifest: Manifest = make_manifest("digits", 2, payload, model_format=model_format)
    manifest = manifest.model_copy(update={"golden": vectors})
    rig.desire(sign_manifest(manifest, TEST_PRIVATE_KEY), payload)
    rig.settle()


BAD_FILES = {
    "cut off": (make_onnx()[:-20], ModelFormat.ONNX, ErrorCode.MODEL_LOAD),
    "one byte": (b"\x08", ModelFormat.ONNX, ErrorCode.MODEL_LOAD),
    "no model": (b"<html>not found</html>" * 50, ModelFormat.ONNX, ErrorCode.MODEL_LOAD),
    "another opset": (with_opset(999), ModelFormat.ONNX, ErrorCode.MODEL_LOAD),
    "tflite called onnx": (make_tflite(), ModelFormat.ONNX, ErrorCode.MODEL_LOAD),
    "tflite cut off": (make_tflite()[:200], ModelFormat.TFLITE, ErrorCode.MODEL_LOAD),
    "no tflite": (b"<html>not found</html>" * 50, ModelFormat.TFLITE, ErrorCode.MODEL_LOAD),
    "onnx called tflite": (make_onnx(), ModelFormat.TFLITE, ErrorCode.MODEL_LOAD),
    "other width": (with_shape([1, 5]), ModelFormat.ONNX, ErrorCode.MODEL_CRASH),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_is_no_good_model_is_one_error_and_the_old_model_stays(
    rig: AgentRig, case: str
) -> None:
    payload, model_format, code = BAD_FILES[case]
    deploy(rig, payload, model_format=model_format)
    record = rig.journal.newest("digits")
    assert record is not None
    assert (record.state, record.error_code) == (DeploymentState.FAILED, code), record.detail
    assert record.detail
    assert str(rig.active()) == "digits@1"


BAD_GOLDEN = {
    "other values": (golden(tensor(X), tensor(X * 3)), ErrorCode.MODEL_GOLDEN),
    "other output shape": (golden(tensor(X), tensor(X[:, :3])), ErrorCode.MODEL_GOLDEN),
    "other input shape": (golden(tensor(X[:, :3]), tensor(X)), ErrorCode.MODEL_CRASH),
    "other input type": (golden(tensor(X.astype("int32")), tensor(X)), ErrorCode.MODEL_CRASH),
    "data that does not fit its shape": (
        golden(tensor(X).model_copy(update={"shape": (1, 5)}), tensor(X)),
        ErrorCode.PROTOCOL_MALFORMED,
    ),
    "a shape beyond all memory": (
        golden(tensor(X).model_copy(update={"shape": (2**40, 2**20)}), tensor(X)),
        ErrorCode.PROTOCOL_MALFORMED,
    ),
}


@pytest.mark.parametrize("case", BAD_GOLDEN)
def test_golden_vectors_that_do_not_fit_are_one_error_and_the_old_model_stays(
    rig: AgentRig, case: str
) -> None:
    vectors, code = BAD_GOLDEN[case]
    deploy(rig, make_onnx(), vectors=vectors)
    record = rig.journal.newest("digits")
    assert record is not None
    assert (record.state, record.error_code) == (DeploymentState.FAILED, code), record.detail
    assert str(rig.active()) == "digits@1"


def test_a_model_with_free_dimensions_runs_in_the_shape_of_its_golden_vectors(
    rig: AgentRig,
) -> None:
    deploy(rig, with_shape(["batch", "width"]))
    assert rig.state() is DeploymentState.COMMITTED
    assert str(rig.active()) == "digits@2"
