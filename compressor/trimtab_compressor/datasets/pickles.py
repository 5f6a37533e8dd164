"""Arrays out of a pickle, by an unpickler that knows three numpy names and nothing else."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable

from trimtab_protocol.errors import TrustError

ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


def read_pickle(pickled: bytes) -> object:
    """Read arrays, and tuples of them, without letting the pickle name anything else.

    Raises:
        TrustError: It names something that is not an array.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(pickled), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, AttributeError) as error:
        raise TrustError(f"the data file is not a pickle of arrays: {error}") from error


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., object]:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        found: Callable[..., object] = super().find_class(
            module.replace("numpy.core", "numpy._core"), name
        )
        return found
