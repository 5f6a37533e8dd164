"""Does the model compute here what its maker saw?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray

from trimtab_agent.measure.golden import check_golden, to_array
from trimtab_agent.runtimes.base import InputSpec
from trimtab_protocol.errors import ErrorCode, ModelError, ProtocolError
from trimtab_protocol.manifest import Golden, GoldenVector
from trimtab_protocol.tensors import DType, SeededTensor, pack_tensor

Compute = Callable[[NDArray[Any]], dict[str, NDArray[Any]]]


class FakeModel:
    """A model that is a function of its input `x`."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._outputs: dict[str, NDArray[Any]] = {}

    def inputs(self) -> tuple[InputSpec, ...]:
        return (InputSpec("x", "float32", (1, 3)),)

    def bind(self, feeds: Mapping[str, NDArray[Any]]) -> Callable[[], object]:
        def infer() -> None:
            self._outputs = self._compute(feeds["x"])

        return infer

    def outputs(self) -> dict[str, NDArray[Any]]:
        return self._outputs


def tensor(*values: float, dtype: DType = "float32") -> Any:
    array = numpy.array([values], dtype)
    return pack_tensor(dtype, array.shape, array.tobytes())


def a_golden(*expected: float, argmax: bool = False, max_abs_error: float = 0.01) -> Golden:
    vector = GoldenVector(inputs={"x": tensor(1, 2, 3)}, outputs={"y": tensor(*expected)})
    return Golden(vectors=(vector,), max_abs_error=max_abs_error, argmax_must_agree=argmax)


def gives(*values: float) -> Compute:
    return lambda _x: {"y": numpy.array([values], numpy.float32)}


def test_a_model_within_the_tolerance_passes() -> None:
    check_golden(FakeModel(gives(1.0, 2.009, 3.0)), a_golden(1.0, 2.0, 3.0))


def test_the_vectors_inputs_are_what_is_fed() -> None:
    check_golden(FakeModel(lambda x: {"y": x * 2}), a_golden(2.0, 4.0, 6.0, max_abs_error=0.0))


WRONG: list[tuple[str, Compute, str]] = [
    ("too far off", gives(1.0, 2.02, 3.0), "vector 0, output y: off by 0.02"),
    ("negative", gives(1.0, -2.0, 3.0), "off by 4, at most 0.01"),
    ("not a number", gives(1.0, float("nan"), 3.0), "not every value is finite"),
    ("infinite", gives(1.0, float("inf"), 3.0), "not every value is finite"),
    ("another shape", gives(1.0, 2.0), r"shape \[1, 2\] instead of \[1, 3\]"),
    ("another output", lambda x: {"z": x}, "the model has no output y"),
]


@pytest.mark.parametrize(
    ("compute", "says"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_a_model_that_computes_something_else_is_told_where_and_how_far(
    compute: Compute, says: str
) -> None:
    with pytest.raises(ModelError, match=says) as caught:
        check_golden(FakeModel(compute), a_golden(1.0, 2.0, 3.0))
    assert caught.value.code is ErrorCode.MODEL_GOLDEN


def test_an_expectation_that_is_not_a_number_is_never_met() -> None:
    with pytest.raises(ModelError):
        check_golden(FakeModel(gives(1.0, 2.0, 3.0)), a_golden(1.0, float("nan"), 3.0))


def test_a_classifier_must_also_agree_on_the_winner() -> None:
    near_tie = gives(1.0, 2.999, 2.998)
    check_golden(FakeModel(near_tie), a_golden(1.0, 2.998, 2.999))
    with pytest.raises(ModelError, match="largest value stands elsewhere"):
        check_golden(FakeModel(near_tie), a_golden(1.0, 2.998, 2.999, argmax=True))


def test_every_vector_is_checked_and_the_wrong_one_is_named() -> None:
    good = a_golden(2.0, 4.0, 6.0).vectors[0]
    bad = GoldenVector(inputs={"x": tensor(5, 5, 5)}, outputs={"y": tensor(0, 0, 0)})
    golden = Golden(vectors=(good, bad), max_abs_error=0.01)
    with pytest.raises(ModelError, match="vector 1"):
        check_golden(FakeModel(lambda x: {"y": x * 2}), golden)


def test_an_integer_output_is_compared_without_overflow() -> None:
    vector = GoldenVector(inputs={"x": tensor(1)}, outputs={"y": tensor(-128, 127, dtype="int8")})
    golden = Golden(vectors=(vector,), max_abs_error=1.0)
    with pytest.raises(ModelError, match="off by 255"):
        check_golden(FakeModel(lambda _x: {"y": numpy.array([[127, 127]], numpy.int8)}), golden)


def test_a_tensor_keeps_its_type_shape_and_values() -> None:
    array = to_array(tensor(-1, 0, 7, dtype="int16"))
    assert array.dtype == numpy.int16
    assert array.tolist() == [[-1, 0, 7]]


def test_a_seeded_tensor_is_the_same_every_time_and_within_its_bounds() -> None:
    seeded = SeededTensor(shape=(2, 500), seed=7, low=-1.0, high=1.0)
    array = to_array(seeded)
    assert array.shape == (2, 500)
    assert (array == to_array(seeded)).all()
    assert -1.0 <= array.min() < -0.9
    assert 0.9 < array.max() <= 1.0


def test_a_tensor_whose_data_does_not_fit_its_shape_is_a_protocol_error() -> None:
    broken = tensor(1, 2, 3).model_copy(update={"shape": (1, 4)})
    with pytest.raises(ProtocolError):
        to_array(broken)
