"""[P-3.1] [P-3.2] [P-3.3] [P-3.4] Nothing runs that its owner did not sign."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from support.factories import (
    OWNER_KEY,
    STRANGER_KEY,
    a_manifest,
    a_signed_manifest,
    trusting,
)
from support.strategies import manifests
from trimtab_protocol.errors import ConfigError, ErrorCode, ProtocolError, TrustError
from trimtab_protocol.manifest import MAX_MANIFEST_BYTES, Manifest, Signature, SignedManifest
from trimtab_protocol.signing import (
    SIGNED_PREFIX,
    decode_key,
    encode_key,
    key_id_of,
    public_key_of,
    read_manifest,
    sign_manifest,
    sign_text,
    verify_manifest,
)
from trimtab_protocol.tensors import pack_tensor

SIGNED = a_signed_manifest()
TRUSTED = trusting(OWNER_KEY)


def _refusal(signed: SignedManifest, trusted: dict[str, bytes]) -> ErrorCode:
    with pytest.raises(TrustError) as caught:
        verify_manifest(signed, trusted)
    return caught.value.code


def _with_signature(text: str) -> SignedManifest:
    row = Signature(key_id=SIGNED.signatures[0].key_id, signature_base64=text)
    return SIGNED.model_copy(update={"signatures": (row,)})


@given(manifest=manifests(), private_key=st.binary(min_size=32, max_size=32))
def test_what_the_owner_signed_is_what_the_device_reads(
    manifest: Manifest, private_key: bytes
) -> None:
    """[P-3.1]"""
    signed = sign_manifest(manifest, private_key)
    assert verify_manifest(signed, trusting(private_key)) == manifest
    assert read_manifest(signed) == manifest


def test_a_manifest_signed_by_a_stranger_is_refused_for_its_key() -> None:
    """[P-3.3]"""
    assert _refusal(a_signed_manifest(private_key=STRANGER_KEY), TRUSTED) is ErrorCode.TRUST_KEY


def test_a_device_that_trusts_nobody_refuses_everything() -> None:
    """[P-3.3]"""
    assert _refusal(SIGNED, {}) is ErrorCode.TRUST_KEY


@given(at=st.integers(0, len(SIGNED.manifest_json) - 1), other=st.characters(codec="utf-8"))
def test_a_changed_character_anywhere_in_the_signed_text_is_refused(at: int, other: str) -> None:
    """[P-3.1]"""
    text = SIGNED.manifest_json
    if text[at] == other:
        return
    changed = SIGNED.model_copy(update={"manifest_json": text[:at] + other + text[at + 1 :]})
    assert _refusal(changed, TRUSTED) is ErrorCode.TRUST_SIGNATURE


def test_every_changed_character_of_the_signature_is_refused() -> None:
    """[P-3.2]"""
    text = SIGNED.signatures[0].signature_base64
    alphabet = "ABCDwxyz0189+/=!é\n"
    for at, own in enumerate(text):
        for other in alphabet.replace(own, ""):
            changed = _with_signature(text[:at] + other + text[at + 1 :])
            assert _refusal(changed, TRUSTED) is ErrorCode.TRUST_SIGNATURE


def test_every_flipped_bit_of_the_signature_is_refused() -> None:
    """[P-3.2]"""
    raw = base64.b64decode(SIGNED.signatures[0].signature_base64)
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        changed = _with_signature(base64.b64encode(flipped).decode("ascii"))
        assert _refusal(changed, TRUSTED) is ErrorCode.TRUST_SIGNATURE


@pytest.mark.parametrize("text", ["", "====", "AAAA", "x" * 1000, "ünïcode"])
def test_a_signature_that_is_none_is_refused(text: str) -> None:
    """[P-3.2]"""
    assert _refusal(_with_signature(text), TRUSTED) is ErrorCode.TRUST_SIGNATURE


@pytest.mark.parametrize("extra", ["\n", " ", "!", "AA==", "===="])
def test_a_signature_has_only_one_spelling(extra: str) -> None:
    """[P-3.2]"""
    text = SIGNED.signatures[0].signature_base64
    assert _refusal(_with_signature(text + extra), TRUSTED) is ErrorCode.TRUST_SIGNATURE


def test_a_signature_over_the_bare_text_is_none_over_a_manifest() -> None:
    """[P-3.2]"""
    bare = SigningKey(OWNER_KEY).sign(SIGNED.manifest_json.encode()).signature
    changed = _with_signature(base64.b64encode(bare).decode("ascii"))
    assert _refusal(changed, TRUSTED) is ErrorCode.TRUST_SIGNATURE


def test_the_signed_bytes_are_the_prefix_and_the_text() -> None:
    """[P-3.2]"""
    expected = SigningKey(OWNER_KEY).sign(b"trimtab-manifest-v1\n" + b"{}").signature
    assert base64.b64decode(sign_text("{}", OWNER_KEY).signature_base64) == expected
    assert SIGNED_PREFIX == b"trimtab-manifest-v1\n"


def test_a_stranger_cannot_borrow_the_owners_key_id() -> None:
    """[P-3.2]"""
    forged = a_signed_manifest(private_key=STRANGER_KEY)
    row = forged.signatures[0].model_copy(update={"key_id": SIGNED.signatures[0].key_id})
    claimed = forged.model_copy(update={"signatures": (row,)})
    assert _refusal(claimed, TRUSTED) is ErrorCode.TRUST_SIGNATURE


@pytest.mark.parametrize("order", [1, -1])
def test_while_keys_rotate_an_unknown_signature_beside_a_trusted_one_is_passed_over(
    order: int,
) -> None:
    """[P-3.4]"""
    rows = (SIGNED.signatures[0], sign_text(SIGNED.manifest_json, STRANGER_KEY))
    both = SIGNED.model_copy(update={"signatures": rows[::order]})
    assert verify_manifest(both, TRUSTED) == a_manifest()
    assert verify_manifest(both, trusting(STRANGER_KEY)) == a_manifest()
    assert verify_manifest(both, trusting(OWNER_KEY, STRANGER_KEY)) == a_manifest()


@pytest.mark.parametrize("order", [1, -1])
def test_one_false_signature_by_a_trusted_key_is_refused_beside_a_true_one(order: int) -> None:
    """[P-3.4]"""
    rows = (SIGNED.signatures[0], sign_text("something else", STRANGER_KEY))
    both = SIGNED.model_copy(update={"signatures": rows[::order]})
    assert _refusal(both, trusting(OWNER_KEY, STRANGER_KEY)) is ErrorCode.TRUST_SIGNATURE


def test_signed_nonsense_is_a_protocol_error_and_not_a_manifest() -> None:
    """[P-3.1]"""
    text = '{"name": "digits"}'
    signed = SignedManifest(manifest_json=text, signatures=(sign_text(text, OWNER_KEY),))
    with pytest.raises(ProtocolError) as caught:
        verify_manifest(signed, TRUSTED)
    assert caught.value.code is ErrorCode.PROTOCOL_MALFORMED


@pytest.mark.parametrize("version", ["2.0", "0.1", ""])
def test_a_manifest_of_another_major_version_is_refused(version: str) -> None:
    """[P-2.3]"""
    text = a_manifest().model_copy(update={"schema_version": version}).model_dump_json()
    signed = SignedManifest(manifest_json=text, signatures=(sign_text(text, OWNER_KEY),))
    with pytest.raises(ProtocolError) as caught:
        verify_manifest(signed, TRUSTED)
    assert caught.value.code is ErrorCode.PROTOCOL_VERSION


def test_a_manifest_that_does_not_fit_into_a_message_is_not_signed() -> None:
    """[P-3.5]"""
    noise = hashlib.shake_256(b"noise").digest(MAX_MANIFEST_BYTES)
    tensor = pack_tensor("uint8", (len(noise),), noise)
    manifest = a_manifest()
    vector = manifest.golden.vectors[0].model_copy(update={"inputs": {"x": tensor}})
    golden = manifest.golden.model_copy(update={"vectors": (vector, vector)})
    with pytest.raises(ProtocolError, match="seeded golden"):
        sign_manifest(manifest.model_copy(update={"golden": golden}), OWNER_KEY)


def test_the_limit_of_a_manifest_counts_bytes_and_ends_where_it_says() -> None:
    """[P-3.5]"""
    plain = a_manifest()
    used = len(plain.model_dump_json(exclude_none=True).encode())
    room = (MAX_MANIFEST_BYTES - used) // 2

    def with_recipe(characters: int) -> Manifest:
        recipe = plain.lineage.recipe + "é" * characters
        return plain.model_copy(
            update={"lineage": plain.lineage.model_copy(update={"recipe": recipe})}
        )

    assert verify_manifest(sign_manifest(with_recipe(room), OWNER_KEY), TRUSTED).name == "digits"
    with pytest.raises(ProtocolError):
        sign_manifest(with_recipe(room + 1), OWNER_KEY)


@given(private_key=st.binary(min_size=32, max_size=32))
def test_a_key_comes_back_from_its_text(private_key: bytes) -> None:
    assert decode_key(encode_key(private_key)) == private_key
    assert decode_key(f"  {encode_key(private_key)}\n") == private_key


@pytest.mark.parametrize(
    "text", ["", "*", "AAAA", encode_key(bytes(31)), encode_key(bytes(33)), "ü" * 44]
)
def test_text_that_is_no_key_is_an_error_of_configuration(text: str) -> None:
    with pytest.raises(ConfigError, match="32 bytes"):
        decode_key(text)


def test_a_key_id_is_sixteen_digits_of_the_digest_of_the_public_key() -> None:
    """[P-3.2]"""
    public = public_key_of(OWNER_KEY)
    assert key_id_of(public) == "56475aa75463474c"
    assert SIGNED.signatures[0].key_id == "56475aa75463474c"


def test_a_broken_trusted_key_refuses_instead_of_failing() -> None:
    """[P-3.4]"""
    key_id = SIGNED.signatures[0].key_id
    assert _refusal(SIGNED, {key_id: b"short"}) is ErrorCode.TRUST_SIGNATURE
