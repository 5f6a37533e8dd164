"""`compare`: how far two files are apart, and what is matched with what."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from support.counted_models import draw, draw_images, quantized, write_graph, write_image_net
from support.tiny_tflite import make_tflite
from trimtab_compressor.cli import main
from trimtab_compressor.comparison.compare import Inputs, Side, compare_files, noise_inputs
from trimtab_compressor.comparison.errors import report_output, sqnr_db
from trimtab_compressor.comparison.layout import Layout, find_layout, move_array
from trimtab_compressor.comparison.report import Comparison
from trimtab_compressor.inspection.graph import Affine
from trimtab_compressor.runtimes.port import Kernels
from trimtab_compressor.specs.quantization import QuantizeDynamic, QuantizeStatic
from trimtab_protocol.errors import ConfigError, ModelError
from trimtab_protocol.manifest import TensorSpec


@pytest.fixture(scope="module")
def image_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_net(tmp_path_factory.mktemp("models") / "net.onnx")


def spec(*shape: int | None) -> TensorSpec:
    return TensorSpec(name="x", dtype="float32", shape=shape)


def test_sqnr_is_the_energy_of_the_signal_over_that_of_the_noise() -> None:
    signal = np.full((1, 100), 2.0, np.float32)
    assert sqnr_db(signal, signal + 0.2).value == pytest.approx(20.0, abs=1e-4)
    assert "last bit" in (sqnr_db(signal, signal).absent or "")
    assert "all zero" in (sqnr_db(0 * signal, signal).absent or "")


def test_an_output_is_judged_by_its_errors_and_its_answers() -> None:
    a = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    b = np.array([[0.0, 0.5], [0.0, 1.0]], np.float32)
    found = report_output(a, b, ("y", "z"), Kernels.EXACT)
    assert found.max_abs_error == 1.0
    assert found.mean_abs_error == pytest.approx(2.5 / 4)
    assert found.same_answer_ratio.value == 0.5
    assert found.cosine == pytest.approx(0.5)
    mask = report_output(np.ones((1, 2, 2, 1)), np.ones((1, 2, 2, 1)), ("y", "z"), Kernels.EXACT)
    assert "no row of scores" in (mask.same_answer_ratio.absent or "")
    with pytest.raises(ModelError, match="not finite"):
        report_output(a, b * np.nan, ("y", "z"), Kernels.EXACT)


def test_layouts_are_found_where_there_is_one_way_and_asked_for_where_there_are_two() -> None:
    def find(
        a: TensorSpec, b: TensorSpec, asked: Layout | None = None, mixed: bool = True
    ) -> Layout:
        return find_layout(a, b, asked=asked, are_formats_mixed=mixed)

    assert find(spec(None, 3, 8, 8), spec(1, 8, 8, 3)) is Layout.NCHW_TO_NHWC
    assert find(spec(1, 8, 8, 3), spec(None, 3, 8, 8)) is Layout.NHWC_TO_NCHW
    assert find(spec(None, 3, 8, 8), spec(1, 3, 8, 8)) is Layout.SAME
    assert find(spec(None, 3), spec(1, 3)) is Layout.SAME
    with pytest.raises(ConfigError, match="--layout"):
        find(spec(None, 8, 8, 8), spec(1, 8, 8, 8))
    assert find(spec(None, 8, 8, 8), spec(1, 8, 8, 8), Layout.NCHW_TO_NHWC) is Layout.NCHW_TO_NHWC
    assert find(spec(None, 8, 8, 8), spec(1, 8, 8, 8), mixed=False) is Layout.SAME
    with pytest.raises(ConfigError, match="same tensors"):
        find(spec(None, 3, 8, 8), spec(1, 9, 9, 3))


def test_moving_there_and_back_changes_nothing() -> None:
    rows = draw(2, 3, 4, 5)
    there = move_array(rows, Layout.NCHW_TO_NHWC)
    assert there.shape == (2, 4, 5, 3)
    assert (there[1, 2, 3] == rows[1, :, 2, 3]).all()
    assert (move_array(there, Layout.NHWC_TO_NCHW) == rows).all()


def test_integers_at_an_input_are_stored_and_read_by_their_scale() -> None:
    affine = Affine(np.array([0.5]), np.array([3.0]), None)
    side = Side(Path("model.tflite"), {"x": affine, "y": affine})
    whole = TensorSpec(name="x", dtype="int8", shape=(None, 3))
    stored = side.store(whole, np.array([[0.0, 1.0, 1000.0]], np.float32))
    assert stored.tolist() == [[3, 5, 127]]
    assert stored.dtype == np.int8
    assert side.read("y", stored).tolist() == [[0.0, 1.0, 62.0]]


def test_a_quantized_file_beside_its_float_model(image_net: Path, tmp_path: Path) -> None:
    static = quantized(image_net, tmp_path / "static.onnx", QuantizeStatic(is_range_reduced=True))
    labels = np.arange(32) % 4
    found = compare_files(image_net, static, Inputs({"x": draw_images()}, labels, "images"))
    assert [row.kernels for row in found.outputs] == ["exact", "default"]
    assert all(row.cosine > 0.99 for row in found.outputs)
    assert found.a.int8_macs_ratio.value == 0.0
    assert found.b.int8_macs_ratio.value == 1.0
    assert found.b.int8_parameters_ratio == pytest.approx(432 / 444)
    assert [(row.operator, row.count) for row in found.a.float_operators] == [
        ("Conv", 2),
        ("Gemm", 1),
    ]
    assert found.b.float_operators == ()
    assert found.a.accuracy_exact.value is not None
    assert found.size_ratio == static.stat().st_size / image_net.stat().st_size


def test_what_is_left_in_float_is_named(image_net: Path, tmp_path: Path) -> None:
    dynamic = quantized(image_net, tmp_path / "dynamic.onnx", QuantizeDynamic())
    found = compare_files(image_net, dynamic, noise_inputs(image_net, {}))
    assert [(row.operator, row.count) for row in found.b.float_operators] == [("Conv", 2)]
    assert found.b.int8_macs_ratio.value == pytest.approx(288 / 5472)
    assert "noise" in found.data
    assert "no labels" in (found.b.accuracy_exact.absent or "")


def test_an_onnx_and_a_tflite_file_can_be_compared(tmp_path: Path) -> None:
    times = write_graph(
        tmp_path / "times.onnx",
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        {"two": np.array([2.0], np.float32)},
        taken=("n", 4),
    )
    other = tmp_path / "times.tflite"
    other.write_bytes(make_tflite(2.5))
    found = compare_files(times, other, Inputs({"x": np.ones((3, 4), np.float32)}, None, "ones"))
    assert all(row.max_abs_error == 0.5 for row in found.outputs)
    assert "no layer" in (found.a.int8_macs_ratio.absent or "")


def test_files_that_take_other_tensors_are_refused(
    image_net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    dense = write_graph(tmp_path / "dense.onnx", [node], {"w": draw(5, 4)}, taken=("n", 5))
    assert main(["compare", str(image_net), str(dense)]) == 2
    assert "must take and give the same tensors" in capsys.readouterr().err


def test_the_command_prints_tables_or_one_document(
    image_net: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, x=draw_images(), labels=np.arange(32) % 4)
    pair = ["compare", str(image_net), str(image_net), "--data", str(data)]
    assert main(pair) == 0
    assert "32 samples" in capsys.readouterr().out
    assert main([*pair, "--samples", "8", "--latency", "--json"]) == 0
    found = Comparison.model_validate(json.loads(capsys.readouterr().out))
    assert found.samples == 8
    assert found.a.accuracy_exact == found.b.accuracy_exact
    assert found.latency is not None
    assert found.latency.ratio.interval is not None
    assert main(["compare", str(image_net), str(image_net), "--labels", "x.npy"]) == 2
    assert "belongs to --data" in capsys.readouterr().err
