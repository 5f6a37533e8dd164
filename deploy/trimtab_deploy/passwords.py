"""Device passwords: made here, shown once, kept as a verifier that mosquitto can read too.

A verifier is `$7$iterations$salt$hash` (PBKDF2-HMAC-SHA512, 12 bytes of salt, 64 bytes of hash, both
base64), the format of mosquitto's password file. A password has 32 random bytes, so nobody can
search for it and a slow hash would protect nothing: the iterations only cost CPU when a fleet
reconnects. Their number is mosquitto's own default.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

ITERATIONS = 101
SALT_BYTES = 12
PASSWORD_BYTES = 32


def make_password() -> str:
    """A new password of 32 random bytes, as text."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def make_verifier(password: str, salt: bytes | None = None) -> str:
    """What is stored of a password."""
    used = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), used, ITERATIONS)
    return f"$7${ITERATIONS}${_text(used)}${_text(digest)}"


def is_password(password: str, verifier: str) -> bool:
    """Whether a password fits its verifier, in constant time; False for a damaged verifier."""
    try:
        _, kind, iterations, salt, digest = verifier.split("$")
        expected = base64.b64decode(digest, validate=True)
        found = hashlib.pbkdf2_hmac(
            "sha512", password.encode(), base64.b64decode(salt, validate=True), int(iterations)
        )
    except (ValueError, binascii.Error):
        return False
    return kind == "7" and hmac.compare_digest(expected, found)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
