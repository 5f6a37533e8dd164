"""Training of the base network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trimtab_compressor.specs.base import Need, NetworkSpec


@dataclass(frozen=True, kw_only=True)
class Train(NetworkSpec):
    """Train the base network from nothing."""

    pass_name: ClassVar[str] = "train"  # noqa: S105 - a name, not a password
    needs: ClassVar[frozenset[Need]] = NetworkSpec.needs | {Need.TRAINING_LABELS}
