"""Key files: base64 text, the private one readable by its owner only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nacl.signing import SigningKey

from trimtab_protocol.errors import ConfigError, ErrorCode
from trimtab_protocol.signing import decode_key, encode_key, key_id_of, public_key_of

PRIVATE_MODE = 0o600


@dataclass(frozen=True)
class KeyPair:
    """Where a pair lies, and its public half."""

    private_path: Path
    public_path: Path
    public_key: bytes

    @property
    def key_id(self) -> str:
        """The short name of the public key."""
        return key_id_of(self.public_key)


def create_keys(folder: Path, name: str) -> KeyPair:
    """Write `name.key` (mode 0600) and `name.pub`.

    Raises:
        ConfigError: One of them exists already, or the folder cannot be written.
    """
    pair_paths = folder / f"{name}.key", folder / f"{name}.pub"
    for path in pair_paths:
        if path.exists():
            raise ConfigError(
                f"{path} exists; a key is never overwritten. Give another --name or --out"
            )
    private_key = bytes(SigningKey.generate())
    public_key = public_key_of(private_key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_new(pair_paths[0], encode_key(private_key), PRIVATE_MODE)
        _write_new(pair_paths[1], encode_key(public_key), 0o644)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror})") from error
    return KeyPair(*pair_paths, public_key)


def read_key(path: Path) -> bytes:
    """Read a key file, private or public.

    Raises:
        ConfigError: It is missing or is not a key.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"key file {path} cannot be read; make one with `trimtab-compressor keys new`",
            code=ErrorCode.CONFIG_MISSING,
        ) from error
    try:
        return decode_key(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from error


def read_private_key(path: Path) -> bytes:
    """Read the half that signs.

    Raises:
        ConfigError: As `read_key`; or it is the public half, by its name or because the private
            half lies beside it.
    """
    key = read_key(path)
    beside = path.with_suffix(".key")
    is_public = path.suffix == ".pub"
    if not is_public and beside.is_file() and beside.resolve() != path.resolve():
        is_public = public_key_of(read_key(beside)) == key
    if is_public:
        raise ConfigError(f"{path} is the public half, which cannot sign; give {beside}")
    return key


def _write_new(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text + "\n")
