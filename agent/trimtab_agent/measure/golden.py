"""Golden vectors: does the model compute here what its maker saw?

A runtime can return garbage without any error, so this is checked on the device, with the runtime
that will be used, before anything is activated. Runs in a child: needs numpy.
"""

from __future__ import annotations

from typing import Any

import numpy

from trimtab_agent.runtimes.base import LoadedModel
from trimtab_protocol.errors import ErrorCode, ModelError
from trimtab_protocol.manifest import Golden
from trimtab_protocol.tensors import InlineTensor, SeededTensor, unpack_tensor


def to_array(tensor: InlineTensor | SeededTensor) -> numpy.ndarray[Any, Any]:
    """A manifest's tensor as an array.

    Raises:
        ProtocolError: Its data does not fit its shape.
    """
    little_endian = numpy.dtype(tensor.dtype).newbyteorder("<")
    return numpy.frombuffer(unpack_tensor(tensor), little_endian).reshape(tensor.shape)


def check_golden(model: LoadedModel, golden: Golden) -> None:
    """Run every golden vector.

    Raises:
        ModelError: `model.golden`, naming the vector, the output and how far it is off.
    """
    for number, vector in enumerate(golden.vectors):
        model.bind({name: to_array(tensor) for name, tensor in vector.inputs.items()})()
        found = model.outputs()
        for name, tensor in vector.outputs.items():
            if name not in found:
                raise _mismatch(f"vector {number}: the model has no output {name}")
            _compare(number, name, found[name], to_array(tensor), golden)


def _compare(
    number: int,
    name: str,
    found: numpy.ndarray[Any, Any],
    expected: numpy.ndarray[Any, Any],
    golden: Golden,
) -> None:
    where = f"vector {number}, output {name}"
    if found.shape != expected.shape:
        raise _mismatch(f"{where}: shape {list(found.shape)} instead of {list(expected.shape)}")
    values = found.astype(numpy.float64)
    if not numpy.all(numpy.isfinite(values)):
        raise _mismatch(f"{where}: not every value is finite")
    error = float(numpy.max(numpy.abs(values - expected.astype(numpy.float64))))
    if not error <= golden.max_abs_error:  # so that an expectation of NaN is never met
        raise _mismatch(
            f"{where}: off by {error:.6g}, at most {golden.max_abs_error:.6g} is allowed"
        )
    if golden.argmax_must_agree and numpy.argmax(found) != numpy.argmax(expected):
        raise _mismatch(f"{where}: the largest value stands elsewhere")


def _mismatch(text: str) -> ModelError:
    return ModelError(text, code=ErrorCode.MODEL_GOLDEN)
