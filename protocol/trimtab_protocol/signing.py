"""Ed25519 signatures over manifests (PyNaCl). Nothing runs that its owner did not sign.

Rules:
    1. The signed bytes are a fixed prefix and the manifest's JSON text, so a signature over
       anything else can never be passed off as one over a manifest.
    2. A key is known by its id: the first 16 hexadecimal digits of the SHA-256 of the public key.
    3. One valid signature by a trusted key is enough. Signatures by unknown keys are passed over,
       so that keys can be rotated; a signature by a trusted key that does not hold is refused
       at once, because then somebody changed something.

PyNaCl is imported where it is used: an agent that waits for work does without its megabyte.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping

from trimtab_protocol.base import parse_versioned
from trimtab_protocol.errors import ConfigError, ErrorCode, ProtocolError, TrustError
from trimtab_protocol.manifest import MAX_MANIFEST_BYTES, Manifest, Signature, SignedManifest

SIGNED_PREFIX = b"trimtab-manifest-v1\n"
KEY_BYTES = 32


def key_id_of(public_key: bytes) -> str:
    """The short, stable name of a public key."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def public_key_of(private_key: bytes) -> bytes:
    """The public half of a 32-byte private seed."""
    from nacl.signing import SigningKey  # noqa: PLC0415 - see the module

    return bytes(SigningKey(private_key).verify_key)


def encode_key(key: bytes) -> str:
    """A key as text for a file or a configuration."""
    return base64.b64encode(key).decode("ascii")


def decode_key(text: str) -> bytes:
    """Read a key that `encode_key` wrote.

    Raises:
        ConfigError: It is not base64 of 32 bytes.
    """
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (ValueError, binascii.Error) as error:
        raise ConfigError(
            f"a key is {KEY_BYTES} bytes in base64, found text that is not base64"
        ) from error
    if len(key) != KEY_BYTES:
        raise ConfigError(f"a key is {KEY_BYTES} bytes in base64, found {len(key)} bytes")
    return key


def sign_manifest(manifest: Manifest, private_key: bytes) -> SignedManifest:
    """Sign a manifest.

    Raises:
        ProtocolError: The manifest is larger than a message may carry: use fewer or seeded golden
            vectors, or larger chunks.
    """
    text = manifest.model_dump_json(exclude_none=True)
    if len(text.encode()) > MAX_MANIFEST_BYTES:
        raise ProtocolError(
            f"manifest of {manifest.ref()} has {len(text.encode())} bytes, at most "
            f"{MAX_MANIFEST_BYTES} fit into one message: use fewer or seeded golden vectors, or larger chunks"
        )
    return SignedManifest(manifest_json=text, signatures=(sign_text(text, private_key),))


def sign_text(manifest_json: str, private_key: bytes) -> Signature:
    """Sign the JSON text of a manifest as it stands."""
    from nacl.signing import SigningKey  # noqa: PLC0415 - see the module

    signed = SigningKey(private_key).sign(SIGNED_PREFIX + manifest_json.encode())
    return Signature(
        key_id=key_id_of(public_key_of(private_key)),
        signature_base64=base64.b64encode(signed.signature).decode("ascii"),
    )


def read_manifest(signed: SignedManifest) -> Manifest:
    """Parse a manifest without judging its signatures (a registry that stores it).

    Raises:
        ProtocolError: Malformed, or of another major version.
    """
    return parse_versioned(Manifest, signed.manifest_json, what="manifest")


def verify_manifest(signed: SignedManifest, trusted_keys: Mapping[str, bytes]) -> Manifest:
    """Check the signatures, then parse.

    Args:
        signed: What came over the wire.
        trusted_keys: Public keys by key id.

    Raises:
        TrustError: `trust.key` if no signature is by a trusted key, `trust.signature` if one by a
            trusted key does not hold. Do not use the artifact.
        ProtocolError: The text is signed, but is not a manifest.
    """
    by_trusted = [row for row in signed.signatures if row.key_id in trusted_keys]
    if not by_trusted:
        found = ", ".join(row.key_id for row in signed.signatures)
        raise TrustError(
            f"signed by {found}, none of which is trusted here ({', '.join(trusted_keys) or 'no key is'})",
            code=ErrorCode.TRUST_KEY,
        )
    message = SIGNED_PREFIX + signed.manifest_json.encode()
    for row in by_trusted:
        _verify_one(row, trusted_keys[row.key_id], message)
    return read_manifest(signed)


def _verify_one(row: Signature, public_key: bytes, message: bytes) -> None:
    from nacl.exceptions import BadSignatureError  # noqa: PLC0415 - see the module
    from nacl.signing import VerifyKey  # noqa: PLC0415

    try:
        signature = base64.b64decode(row.signature_base64)
        if base64.b64encode(signature).decode("ascii") != row.signature_base64:
            raise ValueError("not the one way to write these bytes in base64")  # noqa: TRY301 - same end as the errors of the libraries
        VerifyKey(public_key).verify(message, signature)
    except (BadSignatureError, ValueError, binascii.Error) as error:
        raise TrustError(
            f"the signature by key {row.key_id} does not match the manifest",
            code=ErrorCode.TRUST_SIGNATURE,
        ) from error
