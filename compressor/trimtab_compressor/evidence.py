"""What files are calibrated with and judged on, whatever is being compressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from trimtab_compressor.arrays import AnyArray, IntArray
from trimtab_compressor.runtimes.port import Arrays
from trimtab_compressor.specs.base import Need
from trimtab_protocol.manifest import ModelFormat


@dataclass(frozen=True)
class Evidence:
    """Calibration and test samples.

    Args:
        calibration: By input name, or one array for a model of one input; (n, *input shape). None if
            there is none.
        inputs: Test samples, likewise.
        labels: (n,) of the test samples; None if there are none, then the float model's answers stand
            for them.
        sha256: Digests of "calibration", "test" and "test_labels", as far as there are such.
    """

    calibration: Arrays | AnyArray | None
    inputs: Arrays | AnyArray
    labels: IntArray | None
    sha256: Mapping[str, str]

    def test_digests(self) -> list[str]:
        """What a judgement on the test samples depends on."""
        return [self.sha256["test"], self.sha256.get("test_labels", "no labels")]


class Subject(Protocol):
    """What is compressed: a task, or a model file with samples."""

    @property
    def name(self) -> str:
        """Lowercase; the default name of its artifacts."""

    @property
    def has(self) -> frozenset[Need]:
        """What passes can get from it."""

    @property
    def seed(self) -> int | None:
        """Of its training; None if there is none."""

    def evidence_in(self, model_format: ModelFormat) -> Evidence:
        """Its samples, by the input names of a format where these are known."""
