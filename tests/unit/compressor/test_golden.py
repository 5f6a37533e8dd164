"""Golden vectors and the judgement of agreement."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from trimtab_compressor.agreement import check_agreement, compare_outputs, top1_accuracy
from trimtab_compressor.golden import (
    OUTPUT_STEPS,
    VECTORS,
    choose_rows,
    make_golden,
    margins,
    tolerance_of,
    unpack_array,
)
from trimtab_compressor.runtimes.port import Arrays
from trimtab_protocol.errors import ConfigError, ErrorCode, ModelError
from trimtab_protocol.manifest import IoSpec, TensorSpec
from trimtab_protocol.tensors import DType, SeededTensor

RANDOM = np.random.default_rng(0)


class FakeRunner:
    """A model that is a function."""

    def __init__(
        self,
        compute: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        width: int,
        step: float | None = None,
        dtype: DType = "float32",
    ) -> None:
        self.io = IoSpec(
            inputs=(TensorSpec(name="x", dtype=dtype, shape=(None, width)),),
            outputs=(TensorSpec(name="y", dtype="float32", shape=(None, 3)),),
        )
        self._compute = compute
        self._step = step

    def run_once(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        return {"y": self._compute(inputs["x"])}

    def output_step(self) -> float | None:
        return self._step

    def version(self) -> str:
        return "fake 1"


def first_three(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows[:, :3].astype(np.float32)


def test_real_samples_travel_inline_and_give_their_own_outputs() -> None:
    samples = RANDOM.normal(size=(20, 8)).astype(np.float32) * 10
    golden = make_golden(FakeRunner(first_three, 8), {"x": samples}, is_quantized=False)
    assert len(golden.vectors) == VECTORS
    for vector in golden.vectors:
        sent = unpack_array(vector.inputs["x"])
        assert any((sent == row).all() for row in samples)
        assert (unpack_array(vector.outputs["y"]) == sent[:, :3]).all()
    assert golden.argmax_must_agree


def test_large_inputs_are_grown_from_seeds_in_the_range_of_the_samples() -> None:
    samples = RANDOM.uniform(-1, 3, size=(4, 60_000)).astype(np.float32)
    golden = make_golden(FakeRunner(first_three, 60_000), {"x": samples}, is_quantized=False)
    tensors = [vector.inputs["x"] for vector in golden.vectors]
    assert all(isinstance(tensor, SeededTensor) for tensor in tensors)
    assert len({tensor.seed for tensor in tensors if isinstance(tensor, SeededTensor)}) == VECTORS
    grown = unpack_array(tensors[0])
    assert samples.min() - 1e-6 <= grown.min() < grown.max() <= samples.max() + 1e-6
    assert (unpack_array(golden.vectors[0].outputs["y"]) == grown[:, :3]).all()


def test_large_inputs_that_cannot_be_grown_are_refused() -> None:
    samples = RANDOM.integers(0, 255, size=(4, 60_000)).astype(np.uint8)
    runner = FakeRunner(first_three, 60_000, dtype="uint8")
    with pytest.raises(ConfigError, match="cannot be grown"):
        make_golden(runner, {"x": samples}, is_quantized=True)


def test_one_unclear_vector_frees_all_from_agreeing_on_the_answer() -> None:
    flat = np.zeros((6, 8), np.float32)
    assert not make_golden(
        FakeRunner(first_three, 8), {"x": flat}, is_quantized=False
    ).argmax_must_agree


def test_the_tolerance_is_in_steps_or_in_the_range_of_the_output() -> None:
    outputs = np.array([[0.0, 5.0, 10.0]], np.float32)
    assert tolerance_of(outputs, 0.1, is_quantized=True) == pytest.approx(OUTPUT_STEPS * 0.1)
    assert tolerance_of(outputs, None, is_quantized=True) == pytest.approx(0.2)
    assert tolerance_of(outputs, None, is_quantized=False) == pytest.approx(0.01)


def test_clear_and_different_answers_are_chosen_first() -> None:
    outputs = np.array(
        [[1, 0.99, 0], [9, 0, 0], [8, 0, 0], [0, 9, 0], [0, 0, 9], [0, 8, 0]], np.float32
    )
    assert choose_rows(outputs, tolerance=0.1) == [1, 3, 4, 2]
    assert margins(outputs)[1] == pytest.approx(9.0)
    assert margins(outputs[:, :1]).tolist() == [0.0] * 6


def test_accuracy_counts_the_largest_output() -> None:
    outputs = np.array([[1, 2], [2, 1], [0, 3]], np.float32)
    assert top1_accuracy(outputs, np.array([1, 1, 1])) == pytest.approx(2 / 3)


EXPECTED = RANDOM.normal(size=(50, 3)).astype(np.float32) * 10


def test_rounding_passes_and_garbage_does_not() -> None:
    rounded = EXPECTED + RANDOM.normal(size=EXPECTED.shape) * 0.05
    check_agreement(compare_outputs(rounded, EXPECTED), is_quantized=True)
    garbage = RANDOM.normal(size=EXPECTED.shape) * 10
    with pytest.raises(ModelError, match="does not compute its network") as caught:
        check_agreement(compare_outputs(garbage, EXPECTED), is_quantized=True)
    assert caught.value.code is ErrorCode.MODEL_GOLDEN


def test_a_float_export_has_less_room_than_a_quantized_file() -> None:
    rounded = EXPECTED + 0.5
    check_agreement(compare_outputs(rounded, EXPECTED), is_quantized=True)
    with pytest.raises(ModelError, match="the export is wrong"):
        check_agreement(compare_outputs(rounded, EXPECTED), is_quantized=False)
    check_agreement(compare_outputs(EXPECTED + 1e-4, EXPECTED), is_quantized=False)


def test_outputs_of_another_shape_or_not_finite_are_refused() -> None:
    with pytest.raises(ModelError, match="shape"):
        compare_outputs(EXPECTED[:, :2], EXPECTED)
    broken = EXPECTED.copy()
    broken[0, 0] = np.inf
    with pytest.raises(ModelError, match="not finite"):
        compare_outputs(broken, EXPECTED)
