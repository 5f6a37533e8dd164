"""[P-3.1] [P-3.5] [P-3.6] [P-3.7] [P-6.1] What an artifact is."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from support.factories import PAYLOAD, a_budget, a_golden, a_manifest, a_signed_manifest
from support.strategies import payload_bytes
from trimtab_protocol.budget import Budget
from trimtab_protocol.manifest import (
    DEFAULT_CHUNK_BYTES,
    MAX_CHUNK_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_PAYLOAD_BYTES,
    MIN_CHUNK_BYTES,
    Golden,
    GoldenVector,
    Manifest,
    ModelFormat,
    Payload,
    Quality,
    Requirements,
    RuntimeName,
    Signature,
    SignedManifest,
    describe_payload,
)

chunk_sizes = st.integers(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES)


def _rebuilt(manifest: Manifest, **changes: object) -> Manifest:
    return Manifest.model_validate({**manifest.model_dump(), **changes})


@given(payload=payload_bytes, chunk_bytes=chunk_sizes)
def test_the_chunks_put_together_are_the_payload_and_each_has_its_digest(
    payload: bytes, chunk_bytes: int
) -> None:
    """[P-6.1]"""
    described = describe_payload(payload, ModelFormat.ONNX, chunk_bytes)
    at = 0
    for index, digest in enumerate(described.chunk_digests()):
        chunk = payload[at : at + described.chunk_length_bytes(index)]
        assert hashlib.sha256(chunk).digest() == digest
        at += len(chunk)
    assert at == len(payload) == described.length_bytes
    assert len(described.chunk_digests()) == described.chunk_count
    assert described.sha256 == hashlib.sha256(payload).hexdigest()


@given(payload=payload_bytes, chunk_bytes=chunk_sizes)
def test_every_chunk_but_the_last_is_full_and_the_last_is_not_empty(
    payload: bytes, chunk_bytes: int
) -> None:
    """[P-6.1]"""
    described = describe_payload(payload, ModelFormat.ONNX, chunk_bytes)
    lengths = [described.chunk_length_bytes(index) for index in range(described.chunk_count)]
    assert lengths[:-1] == [chunk_bytes] * (described.chunk_count - 1)
    assert 0 < lengths[-1] <= chunk_bytes


@pytest.mark.parametrize("index", [-1, 3, 1_000_000])
def test_there_is_no_chunk_outside_the_table(index: int) -> None:
    """[P-6.1]"""
    with pytest.raises(IndexError, match="of 3"):
        a_manifest().payload.chunk_length_bytes(index)


def _table(entries: int) -> str:
    return base64.b64encode(bytes(32 * entries)).decode("ascii")


@pytest.mark.parametrize(
    ("length_bytes", "entries"),
    [(1024, 1), (1025, 2), (2048, 2), (2049, 3), (1, 1)],
)
def test_the_chunk_table_has_one_digest_per_chunk(length_bytes: int, entries: int) -> None:
    """[P-6.1]"""

    def build(found: int) -> Payload:
        return Payload(
            format=ModelFormat.ONNX,
            length_bytes=length_bytes,
            sha256="0" * 64,
            chunk_bytes=1024,
            chunk_sha256_base64=_table(found),
        )

    assert build(entries).chunk_count == entries
    for wrong in (entries - 1, entries + 1):
        with pytest.raises(ValidationError, match="chunk digests"):
            build(wrong)


@pytest.mark.parametrize("table", [_table(3)[:-4], _table(3) + "\n", "*" * 128, "ü" * 128, "AAA"])
def test_a_chunk_table_that_is_not_exact_base64_is_refused(table: str) -> None:
    """[P-6.1]"""
    document = {**a_manifest().payload.model_dump(), "chunk_sha256_base64": table}
    with pytest.raises(ValidationError):
        Payload.model_validate(document)


@pytest.mark.parametrize("chunk_bytes", [MIN_CHUNK_BYTES - 1, MAX_CHUNK_BYTES + 1])
def test_a_chunk_size_stays_within_its_bounds(chunk_bytes: int) -> None:
    """[P-6.1]"""
    with pytest.raises(ValidationError, match="chunk_bytes"):
        describe_payload(PAYLOAD, ModelFormat.ONNX, chunk_bytes)


@pytest.mark.parametrize("length_bytes", [0, -1, MAX_PAYLOAD_BYTES + 1])
def test_a_payload_is_neither_empty_nor_larger_than_the_limit(length_bytes: int) -> None:
    """[P-6.1]"""
    document = {**a_manifest().payload.model_dump(), "length_bytes": length_bytes}
    with pytest.raises(ValidationError, match="length_bytes"):
        Payload.model_validate(document)


def test_an_empty_model_file_has_no_description() -> None:
    """[P-6.1]"""
    with pytest.raises(ValueError, match="length_bytes"):
        describe_payload(b"", ModelFormat.ONNX)


def test_a_payload_is_cut_into_64_kib_unless_told_otherwise() -> None:
    """[P-6.1]"""
    described = describe_payload(bytes(DEFAULT_CHUNK_BYTES + 1), ModelFormat.TFLITE)
    assert described.chunk_bytes == 64 * 1024
    assert described.chunk_count == 2


@pytest.mark.parametrize(
    ("model_format", "runtime"),
    [
        (ModelFormat.ONNX, RuntimeName.LITERT),
        (ModelFormat.TFLITE, RuntimeName.ONNXRUNTIME),
    ],
)
def test_a_payload_and_the_runtime_that_it_requires_fit_together(
    model_format: ModelFormat, runtime: RuntimeName
) -> None:
    """[P-3.7]"""
    manifest = a_manifest(model_format=model_format)
    with pytest.raises(ValidationError, match="runs on"):
        _rebuilt(manifest, requirements=Requirements(runtime=runtime))


def _golden(inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Golden:
    good = a_golden().vectors[0]
    vector = GoldenVector(
        inputs=dict.fromkeys(inputs, good.inputs["x"]),
        outputs=dict.fromkeys(outputs, good.outputs["y"]),
    )
    return Golden(vectors=(good, vector), max_abs_error=0.0)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ((), ("y",)),
        (("other",), ("y",)),
        (("x", "other"), ("y",)),
        (("x",), ("other",)),
        (("x",), ("y", "other")),
    ],
)
def test_golden_vectors_name_the_inputs_and_outputs_of_the_model(
    inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> None:
    """[P-3.6]"""
    with pytest.raises(ValidationError, match="golden vectors name"):
        _rebuilt(a_manifest(), golden=_golden(inputs, outputs))


def test_golden_vectors_may_leave_out_some_outputs_but_not_all() -> None:
    """[P-3.6]"""
    manifest = a_manifest()
    more = manifest.io.outputs[0].model_copy(update={"name": "features"})
    io = manifest.io.model_copy(update={"outputs": (*manifest.io.outputs, more)})
    assert _rebuilt(manifest, io=io.model_dump()).golden == manifest.golden
    with pytest.raises(ValidationError, match="outputs"):
        _golden(("x",), ())


def test_a_manifest_without_golden_vectors_is_refused() -> None:
    """[P-3.6]"""
    with pytest.raises(ValidationError, match="vectors"):
        Golden(vectors=(), max_abs_error=0.0)


def test_a_budget_is_the_classs_own_else_the_one_for_any_class_else_empty() -> None:
    """[P-8.1]"""
    own, general = a_budget(p90_ms=8.0), a_budget(p90_ms=20.0)
    both = a_manifest(budgets={"orin": own, "*": general})
    assert both.budget_for("orin") == own
    assert both.budget_for("pi4") == general
    assert a_manifest(budgets={"orin": own}).budget_for("pi4") == Budget()


@pytest.mark.parametrize("version", [0, -1, 2**53 + 1])
def test_a_version_is_a_positive_integer_that_json_carries_exactly(version: int) -> None:
    """[P-3.7]"""
    with pytest.raises(ValidationError):
        a_manifest(version=version)


def test_a_reference_is_written_name_at_version() -> None:
    """[P-3.7]"""
    ref = a_manifest(name="digits", version=7).ref()
    assert str(ref) == "digits@7"
    assert ref.sha256 == hashlib.sha256(PAYLOAD).hexdigest()


def test_a_signed_manifest_is_bounded_in_text_and_in_signatures() -> None:
    """[P-3.5]"""
    row = a_signed_manifest().signatures[0]
    SignedManifest(manifest_json="x" * MAX_MANIFEST_BYTES, signatures=(row,) * 8)
    with pytest.raises(ValidationError):
        SignedManifest(manifest_json="x" * (MAX_MANIFEST_BYTES + 1), signatures=(row,))
    with pytest.raises(ValidationError):
        SignedManifest(manifest_json="x", signatures=(row,) * 9)
    with pytest.raises(ValidationError):
        SignedManifest(manifest_json="x", signatures=())


@pytest.mark.parametrize("key_id", ["", "a/b", "a" * 81, "a\n"])
def test_a_key_id_is_safe_in_a_file_name(key_id: str) -> None:
    """[P-3.2]"""
    with pytest.raises(ValidationError):
        Signature(key_id=key_id, signature_base64="")


@pytest.mark.parametrize(
    ("exact", "on_host", "base", "drop"),
    [
        (0.875, 0.5, 1.0, 0.125),
        (None, 0.75, 1.0, 0.25),
        (1.0, None, 0.75, -0.25),
        (0.0, 1.0, 0.5, 0.5),
        (None, None, 1.0, None),
        (0.5, 0.5, None, None),
    ],
)
def test_the_accuracy_drop_is_by_the_exact_figure_or_unknown(
    exact: float | None, on_host: float | None, base: float | None, drop: float | None
) -> None:
    """[P-7.1]"""
    quality = Quality(samples=100, exact=exact, on_host=on_host, base=base)
    assert quality.drop() == drop
