"""Signed artifacts for tests. The payload may be random bytes: the control plane never looks inside."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping

from trimtab_protocol.budget import Budget
from trimtab_protocol.manifest import (
    DEFAULT_CHUNK_BYTES,
    RUNTIME_FOR,
    Golden,
    GoldenVector,
    IoSpec,
    Lineage,
    Manifest,
    ModelFormat,
    Quality,
    Requirements,
    SignedManifest,
    TensorSpec,
    describe_payload,
)
from trimtab_protocol.signing import sign_manifest
from trimtab_protocol.tensors import pack_tensor

TEST_PRIVATE_KEY = hashlib.sha256(b"the owner of the test artifacts").digest()


def make_manifest(
    name: str,
    version: int,
    payload: bytes,
    *,
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    model_format: ModelFormat = ModelFormat.ONNX,
    device_classes: tuple[str, ...] = (),
    budgets: Mapping[str, Budget] | None = None,
    quality: Quality | None = None,
) -> Manifest:
    """A manifest with one input and one output of four floats."""
    zeros = pack_tensor("float32", (1, 4), struct.pack("<4f", 0, 0, 0, 0))
    spec = TensorSpec(name="x", dtype="float32", shape=(1, 4))
    return Manifest(
        name=name,
        version=version,
        io=IoSpec(inputs=(spec,), outputs=(spec.model_copy(update={"name": "y"}),)),
        payload=describe_payload(payload, model_format, chunk_bytes),
        lineage=Lineage(recipe="none"),
        quality=quality,
        requirements=Requirements(runtime=RUNTIME_FOR[model_format], device_classes=device_classes),
        golden=Golden(
            vectors=(GoldenVector(inputs={"x": zeros}, outputs={"y": zeros}),), max_abs_error=0.0
        ),
        budgets=dict(budgets or {}),
    )


def make_artifact(
    name: str,
    version: int,
    payload: bytes,
    *,
    private_key: bytes = TEST_PRIVATE_KEY,
    chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    model_format: ModelFormat = ModelFormat.ONNX,
    device_classes: tuple[str, ...] = (),
    budgets: Mapping[str, Budget] | None = None,
    quality: Quality | None = None,
) -> tuple[SignedManifest, bytes]:
    """A signed artifact and its payload."""
    manifest = make_manifest(
        name,
        version,
        payload,
        chunk_bytes=chunk_bytes,
        model_format=model_format,
        device_classes=device_classes,
        budgets=budgets,
        quality=quality,
    )
    return sign_manifest(manifest, private_key), payload
