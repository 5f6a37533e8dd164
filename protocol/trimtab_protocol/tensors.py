"""Small tensors inside a manifest: inline and compressed, or grown from a seed.

Golden inputs must travel with the artifact. A digit of 28 × 28 travels as it is (zlib, base64); an
image of 224 × 224 × 3 floats would not fit into one MQTT message, so it is grown on both sides from
a seed: SHAKE-256 of the seed gives one byte per element, scaled to [low, high].

No numpy here: the resident agent reads manifests and must stay small. Raw bytes are little-endian,
row-major (C order).
"""

from __future__ import annotations

import base64
import hashlib
import math
import sys
import zlib
from array import array
from typing import Annotated, Literal, Union

from pydantic import Field

from trimtab_protocol.base import WireModel
from trimtab_protocol.errors import ProtocolError

DType = Literal["float32", "float16", "int8", "uint8", "int16", "int32", "int64", "bool"]

DTYPE_BYTES: dict[str, int] = {
    "float32": 4,
    "float16": 2,
    "int8": 1,
    "uint8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "bool": 1,
}

FLOAT32_MAX = 3.4028234663852886e38
"""Largest finite IEEE 754 binary32."""

MAX_TENSOR_BYTES = 64 * 1024 * 1024
"""A tensor that claims more is refused before anything is allocated."""


def count_elements(shape: tuple[int, ...]) -> int:
    """Number of elements of a static shape; 1 for a scalar."""
    return math.prod(shape)


class InlineTensor(WireModel):
    """A tensor that carries its own values."""

    kind: Literal["inline"] = "inline"
    dtype: DType
    shape: tuple[Annotated[int, Field(ge=1)], ...]
    zlib_base64: str = Field(description="zlib-compressed little-endian row-major bytes, base64")


class SeededTensor(WireModel):
    """A float32 tensor grown from a seed; both sides grow the same bits."""

    kind: Literal["seeded"] = "seeded"
    dtype: Literal["float32"] = "float32"
    shape: tuple[Annotated[int, Field(ge=1)], ...]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    low: Annotated[float, Field(ge=-FLOAT32_MAX, le=FLOAT32_MAX)] = 0.0
    high: Annotated[float, Field(ge=-FLOAT32_MAX, le=FLOAT32_MAX)] = 1.0


Tensor = Annotated[Union[InlineTensor, SeededTensor], Field(discriminator="kind")]


def pack_tensor(dtype: DType, shape: tuple[int, ...], raw: bytes) -> InlineTensor:
    """Compress raw little-endian bytes into an inline tensor.

    Raises:
        ProtocolError: `raw` does not have the length that dtype and shape ask for.
    """
    expected = count_elements(shape) * DTYPE_BYTES[dtype]
    if len(raw) != expected:
        raise ProtocolError(
            f"tensor of {dtype} {list(shape)} needs {expected} bytes, got {len(raw)}"
        )
    packed = base64.b64encode(zlib.compress(raw, 9)).decode("ascii")
    return InlineTensor(dtype=dtype, shape=shape, zlib_base64=packed)


def unpack_tensor(tensor: InlineTensor | SeededTensor) -> bytes:
    """Give the raw little-endian row-major bytes of a tensor.

    Raises:
        ProtocolError: The data does not decompress to exactly what dtype and shape ask for.
    """
    expected = count_elements(tensor.shape) * DTYPE_BYTES[tensor.dtype]
    if expected > MAX_TENSOR_BYTES:
        raise ProtocolError(
            f"tensor of {expected} bytes is over the limit of {MAX_TENSOR_BYTES} bytes"
        )
    if isinstance(tensor, SeededTensor):
        return _grow(tensor)
    try:
        decompressor = zlib.decompressobj()
        raw = decompressor.decompress(base64.b64decode(tensor.zlib_base64), expected + 1)
    except (ValueError, zlib.error) as error:
        raise ProtocolError(f"tensor data is not base64 of zlib: {error}") from error
    if len(raw) != expected:
        raise ProtocolError(
            f"tensor of {tensor.dtype} {list(tensor.shape)} needs {expected} bytes, "
            f"its data has {'more' if len(raw) > expected else len(raw)}"
        )
    if not decompressor.eof:  # the zlib checksum at the end is missing
        raise ProtocolError(f"tensor of {tensor.dtype} {list(tensor.shape)} has cut-off data")
    return raw


def _grow(tensor: SeededTensor) -> bytes:
    elements = count_elements(tensor.shape)
    noise = hashlib.shake_256(str(tensor.seed).encode("ascii")).digest(elements)
    step = (tensor.high - tensor.low) / 255.0
    values = array("f", (tensor.low + step * byte for byte in noise))
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()
