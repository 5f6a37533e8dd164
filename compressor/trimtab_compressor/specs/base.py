"""Spec: the base of all, and what a pass may need.

Rules:
    1. A spec refuses nonsense when it is built, in one message that names the pass, the parameter
       and the remedy.
    2. Parameters are plain values, so that a manifest can carry them and a recipe file can give them.
    3. A spec says what its pass needs. What is missing is found before anything is computed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import ClassVar

from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import ModelFormat, Scalar

BOTH_FORMATS = frozenset(ModelFormat)
ONLY_ONNX = frozenset({ModelFormat.ONNX})
ONLY_TFLITE = frozenset({ModelFormat.TFLITE})


class Need(str, Enum):
    """What a pass cannot do without."""

    NETWORK = "network"  # a PyTorch network, which a task has and a model file has not
    TRAINING_INPUTS = "training inputs"
    TRAINING_LABELS = "training labels"
    WIDTHS = "networks of other widths"  # build_model as a function of the width
    STUDENT = "a student network"
    CALIBRATION = "calibration samples"
    VALIDATION = "validation samples"  # held out; FileStage.validation is given to who needs it
    TEST_LABELS = "labels of the test samples"


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Base of all specs: a stable name, and plain parameters.

    Args of the class:
        pass_name: As it stands in recipes and manifests; never changed.
        revision: Raised when the pass computes something else than before, so that nothing old is
            taken from a cache.
        needs: What the pass cannot do without.
    """

    pass_name: ClassVar[str]
    revision: ClassVar[int] = 1
    needs: ClassVar[frozenset[Need]] = frozenset()

    def parameters(self) -> dict[str, Scalar]:
        """The parameters as they stand in a manifest: a list of texts as one text."""
        return {
            name: ", ".join(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    def all_needs(self) -> frozenset[Need]:
        """What the pass cannot do without when it is told this; `needs`, unless a parameter adds to it."""
        return self.needs

    def files(self) -> tuple[str, ...]:
        """Files that the pass reads; what is in them is part of the cache key."""
        return ()

    def task_files(self) -> tuple[str, ...]:
        """Tasks whose base network the pass starts from; they are part of the cache key too."""
        return ()

    def check(self, holds: bool, parameter: str, remedy: str) -> None:
        """Refuse a parameter, in `__post_init__`.

        Raises:
            ConfigError: `holds` is false.
        """
        if not holds:
            value = getattr(self, parameter)
            raise ConfigError(f"{self.pass_name}: {parameter} is {value!r}; {remedy}")


@dataclass(frozen=True, kw_only=True)
class NetworkSpec(Spec):
    """A pass over a PyTorch network: (network, data) -> network."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.NETWORK, Need.TRAINING_INPUTS})


@dataclass(frozen=True, kw_only=True)
class FileSpec(Spec):
    """A pass over a model file: file -> file of the same format.

    Args of the class:
        formats: The formats that the pass exists for.
        is_exact: Whether the file computes the same as before, up to the rounding of floats.
    """

    formats: ClassVar[frozenset[ModelFormat]] = BOTH_FORMATS
    is_exact: ClassVar[bool] = False
