"""The manifest: what an artifact is, immutable and signed.

Rules:
    1. An artifact is `name@version`, known by the SHA-256 of its payload. The same name and version
       never mean two contents.
    2. The payload is cut into chunks of `chunk_bytes` (the last one shorter); each has its digest
       here, so a device can judge every chunk when it arrives.
    3. Golden vectors travel in the manifest. The whole manifest stays below MAX_MANIFEST_BYTES, so
       that it fits into one message of the narrowest broker (128 KB).
"""

from __future__ import annotations

import base64
import hashlib
import math
from enum import Enum
from typing import Annotated, Union

from pydantic import Field, StringConstraints, model_validator

from trimtab_protocol import PROTOCOL_VERSION
from trimtab_protocol.base import Identifier, Name, Sha256, UnixTime, Version, WireModel
from trimtab_protocol.budget import Budget
from trimtab_protocol.tensors import DType, Tensor

MAX_MANIFEST_BYTES = 96 * 1024
"""128 KB is the smallest packet limit that must be served; the rest is for the message around it."""

MAX_PAYLOAD_BYTES = 1024**3
MIN_CHUNK_BYTES, DEFAULT_CHUNK_BYTES, MAX_CHUNK_BYTES = 1024, 64 * 1024, 1024**2
DIGEST_BYTES = 32

ANY_CLASS = "*"

Scalar = Union[bool, int, float, str, None]


class ModelFormat(str, Enum):
    """File formats a device can run."""

    ONNX = "onnx"
    TFLITE = "tflite"


class RuntimeName(str, Enum):
    """Runtimes an agent may have. LITERT stands for LiteRT and, where it has no wheel, tflite-runtime."""

    ONNXRUNTIME = "onnxruntime"
    LITERT = "litert"


RUNTIME_FOR: dict[ModelFormat, RuntimeName] = {
    ModelFormat.ONNX: RuntimeName.ONNXRUNTIME,
    ModelFormat.TFLITE: RuntimeName.LITERT,
}


class TensorSpec(WireModel):
    """One input or output. A dimension of None is free (a batch); devices run it as 1."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    dtype: DType
    shape: tuple[Annotated[int, Field(ge=1)] | None, ...]


class IoSpec(WireModel):
    """Inputs and outputs in the order of the model file."""

    inputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], Field(min_length=1)]


class Payload(WireModel):
    """The model file: its length, its digest, and one digest per chunk."""

    format: ModelFormat
    length_bytes: Annotated[int, Field(ge=1, le=MAX_PAYLOAD_BYTES)]
    sha256: Sha256
    chunk_bytes: Annotated[int, Field(ge=MIN_CHUNK_BYTES, le=MAX_CHUNK_BYTES)] = DEFAULT_CHUNK_BYTES
    chunk_sha256_base64: str = Field(description="the raw SHA-256 of every chunk, in order, base64")

    @model_validator(mode="after")
    def _one_digest_per_chunk(self) -> Payload:
        found = len(self._digests())
        expected = self.chunk_count * DIGEST_BYTES
        if found != expected:
            raise ValueError(
                f"{self.length_bytes} bytes in chunks of {self.chunk_bytes} need {expected} bytes "
                f"of chunk digests, found {found}"
            )
        return self

    def _digests(self) -> bytes:
        return base64.b64decode(self.chunk_sha256_base64, validate=True)

    @property
    def chunk_count(self) -> int:
        """How many chunks the payload has."""
        return math.ceil(self.length_bytes / self.chunk_bytes)

    def chunk_length_bytes(self, index: int) -> int:
        """Length of chunk `index`; all are `chunk_bytes` long but the last.

        Raises:
            IndexError: There is no such chunk.
        """
        if not 0 <= index < self.chunk_count:
            raise IndexError(f"chunk {index} of {self.chunk_count}")
        return min(self.chunk_bytes, self.length_bytes - index * self.chunk_bytes)

    def chunk_digests(self) -> tuple[bytes, ...]:
        """The raw digest of every chunk, in order."""
        joined = self._digests()
        return tuple(
            joined[start : start + DIGEST_BYTES] for start in range(0, len(joined), DIGEST_BYTES)
        )


def describe_payload(
    payload: bytes, model_format: ModelFormat, chunk_bytes: int = DEFAULT_CHUNK_BYTES
) -> Payload:
    """Compute the digests of a model file that is in memory."""
    digests = b"".join(
        hashlib.sha256(payload[start : start + chunk_bytes]).digest()
        for start in range(0, len(payload), chunk_bytes)
    )
    return Payload(
        format=model_format,
        length_bytes=len(payload),
        sha256=hashlib.sha256(payload).hexdigest(),
        chunk_bytes=chunk_bytes,
        chunk_sha256_base64=base64.b64encode(digests).decode("ascii"),
    )


class PassRecord(WireModel):
    """One pass that was applied, with everything needed to apply it again."""

    name: str
    parameters: dict[str, Scalar] = Field(default_factory=dict)
    findings: dict[str, Scalar] = Field(
        default_factory=dict, description="what it found out, such as the ratio at which it stopped"
    )
    seconds: Annotated[float, Field(ge=0)] | None = None


class Lineage(WireModel):
    """Where an artifact comes from."""

    base_sha256: Sha256 | None = Field(default=None, description="payload of the base, if exported")
    recipe: str = Field(description="decodable name, such as prune30_distill_static_w8a8")
    passes: tuple[PassRecord, ...] = ()
    seed: int | None = None
    data_sha256: dict[str, Sha256] = Field(default_factory=dict)
    tools: dict[str, str] = Field(default_factory=dict, description="library versions")
    created_at: UnixTime | None = None


class Quality(WireModel):
    """Accuracy of the exported file, and which accuracy is which.

    `exact` is the integer arithmetic as written in the file, without the saturation of some CPUs;
    `on_host` is what the default kernels of the host CPU gave. Both are ratios from 0 to 1.
    """

    metric: str = "top1_accuracy"
    samples: Annotated[int, Field(ge=1)]
    exact: Annotated[float, Field(ge=0, le=1)] | None = None
    on_host: Annotated[float, Field(ge=0, le=1)] | None = None
    base: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="the base model's accuracy on the same samples"
    )
    host_cpu: str = ""

    def drop(self) -> float | None:
        """How much worse than the base, by the exact figure if there is one; None if unknown."""
        own = self.exact if self.exact is not None else self.on_host
        return None if own is None or self.base is None else self.base - own


class Requirements(WireModel):
    """What a device must have. An empty list of classes means any class."""

    device_classes: tuple[Name, ...] = ()
    runtime: RuntimeName
    min_runtime_version: str | None = None
    min_memory_bytes: Annotated[int, Field(ge=0)] = 0


class GoldenVector(WireModel):
    """Inputs by name, and the outputs (at least one) that the model must give for them."""

    inputs: dict[str, Tensor]
    outputs: Annotated[dict[str, Tensor], Field(min_length=1)]


class Golden(WireModel):
    """Golden vectors and how far a device may be from them.

    Args:
        vectors: At least one.
        max_abs_error: Largest allowed difference of any output element, in the output's unit
            after dequantization.
        argmax_must_agree: Whether the largest element must stand at the same place (classifiers).
    """

    vectors: Annotated[tuple[GoldenVector, ...], Field(min_length=1)]
    max_abs_error: Annotated[float, Field(ge=0)]
    argmax_must_agree: bool = False


class Manifest(WireModel):
    """Everything a device or a control plane must know about one artifact."""

    schema_version: str = PROTOCOL_VERSION
    name: Name
    version: Version
    io: IoSpec
    payload: Payload
    lineage: Lineage
    quality: Quality | None = None
    requirements: Requirements
    golden: Golden
    budgets: dict[str, Budget] = Field(
        default_factory=dict, description="by device class; '*' for every class without its own"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        wanted = RUNTIME_FOR[self.payload.format]
        if self.requirements.runtime is not wanted:
            raise ValueError(
                f"a {self.payload.format.value} payload runs on {wanted.value}, "
                f"not on {self.requirements.runtime.value}"
            )
        inputs = {spec.name for spec in self.io.inputs}
        outputs = {spec.name for spec in self.io.outputs}
        for vector in self.golden.vectors:
            if set(vector.inputs) != inputs or not set(vector.outputs) <= outputs:
                raise ValueError(
                    f"golden vectors name {sorted(vector.inputs)} -> {sorted(vector.outputs)}, "
                    f"the model has {sorted(inputs)} -> {sorted(outputs)}"
                )
        return self

    def budget_for(self, device_class: str) -> Budget:
        """The budget of a class: its own, else the one for any class, else an empty one."""
        return self.budgets.get(device_class, self.budgets.get(ANY_CLASS, Budget()))

    def ref(self) -> ArtifactRef:
        """The short form that travels in reports."""
        return ArtifactRef(name=self.name, version=self.version, sha256=self.payload.sha256)


class ArtifactRef(WireModel):
    """`name@version` and the digest of its payload."""

    name: Name
    version: Version
    sha256: Sha256

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class Signature(WireModel):
    """One Ed25519 signature over the manifest's bytes."""

    key_id: Identifier
    signature_base64: str


class SignedManifest(WireModel):
    """The manifest exactly as it was signed, and its signatures.

    The JSON text travels as a string, so that nobody has to agree on a canonical form: what was
    signed is what is parsed. [P-3.1]
    """

    manifest_json: Annotated[str, StringConstraints(max_length=MAX_MANIFEST_BYTES)]
    signatures: Annotated[tuple[Signature, ...], Field(min_length=1, max_length=8)]
