"""Real ONNX models, small enough to be made in a test: y = scale * x, for four floats.

`padding_bytes` makes the file large (an initializer that nothing uses); `layers` makes it slow
(that many multiplications of 256 x 256 matrices before the answer, without changing it).
"""

from __future__ import annotations

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

from support.artifacts import TEST_PRIVATE_KEY, make_manifest
from trimtab_protocol.manifest import Golden, GoldenVector, SignedManifest
from trimtab_protocol.signing import sign_manifest
from trimtab_protocol.tensors import pack_tensor

WIDTH = 256


def make_onnx(scale: float = 2.0, *, padding_bytes: int = 0, layers: int = 0) -> bytes:
    """The bytes of a model file."""
    nodes = [helper.make_node("Mul", ["x", "scale"], ["scaled" if layers else "y"])]
    weights = [numpy_helper.from_array(numpy.array([scale], numpy.float32).reshape(1), "scale")]
    if layers:
        spread = numpy.zeros((4, WIDTH), numpy.float32)
        spread[:, :4] = numpy.eye(4)
        weights += [
            numpy_helper.from_array(spread, "spread"),
            numpy_helper.from_array(numpy.eye(WIDTH, dtype=numpy.float32), "same"),
            numpy_helper.from_array(spread.T.copy(), "gather"),
        ]
        nodes.append(helper.make_node("MatMul", ["scaled", "spread"], ["h0"]))
        for number in range(layers):
            nodes.append(helper.make_node("MatMul", [f"h{number}", "same"], [f"m{number}"]))
            nodes.append(helper.make_node("Relu", [f"m{number}"], [f"h{number + 1}"]))
        nodes.append(helper.make_node("MatMul", [f"h{layers}", "gather"], ["y"]))
    if padding_bytes:
        noise = numpy.random.default_rng(0).integers(0, 255, padding_bytes, dtype=numpy.uint8)
        weights.append(numpy_helper.from_array(noise, "padding"))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def make_real_artifact(
    version: int,
    *,
    name: str = "digits",
    scale: float = 2.0,
    golden_scale: float | None = None,
    padding_bytes: int = 0,
    layers: int = 0,
    device_classes: tuple[str, ...] = (),
    private_key: bytes = TEST_PRIVATE_KEY,
    chunk_bytes: int = 64 * 1024,
) -> tuple[SignedManifest, bytes]:
    """A signed artifact that ONNX Runtime loads; `golden_scale` makes its golden vectors lie."""
    payload = make_onnx(scale, padding_bytes=padding_bytes, layers=layers)
    x = numpy.array([[1, 2, 3, 4]], numpy.float32)
    y = x * numpy.float32(golden_scale if golden_scale is not None else scale)
    vector = GoldenVector(
        inputs={"x": pack_tensor("float32", (1, 4), x.tobytes())},
        outputs={"y": pack_tensor("float32", (1, 4), y.tobytes())},
    )
    manifest = make_manifest(
        name, version, payload, chunk_bytes=chunk_bytes, device_classes=device_classes
    ).model_copy(update={"golden": Golden(vectors=(vector,), max_abs_error=1e-5)})
    return sign_manifest(manifest, private_key), payload
