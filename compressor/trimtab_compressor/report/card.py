"""What stands in a model card. The page shows these figures and no others."""

from __future__ import annotations

from typing import Literal

from trimtab_compressor.inspection.graph import Arithmetic
from trimtab_compressor.run_report import CandidateResult, FailedCandidate
from trimtab_protocol.base import WireModel
from trimtab_protocol.reading import Reading


class Histogram(WireModel):
    """Shares of values in bins of one width from `low` to `high`; they add up to 1."""

    low: float
    high: float
    shares: tuple[float, ...]


class HistogramPair(WireModel):
    """One layer's values in the float file and in a candidate, over the same bins."""

    candidate: str
    what: Literal["weights", "activations"]
    layer: str
    before: Histogram
    after: Histogram
    note: str = ""


class LayerError(WireModel):
    """How far one layer of a candidate is from the same one of the float file.

    Args:
        layer: As the float file names its weight.
        weights_db: Signal over noise of the weights; absent where they are others.
        activations_db: The same of what the layer gives, with all errors before it.
    """

    layer: str
    weights_db: Reading
    activations_db: Reading


class LayerSensitivity(WireModel):
    """One layer, quantized alone: signal over noise of the outputs, and accuracy that is lost."""

    layer: str
    sqnr_db: float
    drop: float | None


class SensitivityTable(WireModel):
    """The layers of one float file, from the most sensitive on.

    Args:
        samples: That were judged.
        accuracy: Of the float file on them; absent without labels.
        left_in_float: Layers that the quantizer does not take.
    """

    file: str
    samples: int
    accuracy: float | None
    layers: tuple[LayerSensitivity, ...]
    left_in_float: tuple[str, ...]


class CardCandidate(WireModel):
    """One candidate with what was found in its file.

    Args:
        result: As in results.json.
        sha256: Of the file.
        parameters: In the file.
        macs: Of one sample.
        arithmetic: Layers by what they compute with.
        int8_macs_ratio: Share of the multiplications that are of integers.
        is_best_for_size: No other candidate is as accurate and smaller, or as small and more
            accurate.
        is_best_for_macs: The same, with work for size.
        errors: By layer; empty for a float file, or where layers cannot be matched.
        note: Why something is missing.
    """

    result: CandidateResult
    sha256: str | None
    parameters: int | None
    macs: Reading
    arithmetic: dict[Arithmetic, int]
    int8_macs_ratio: Reading
    is_best_for_size: bool = False
    is_best_for_macs: bool = False
    errors: tuple[LayerError, ...] = ()
    note: str = ""

    @property
    def name(self) -> str:
        """Recipe and format."""
        return f"{self.result.recipe} ({self.result.format.value})"

    @property
    def accuracy(self) -> float | None:
        """By the arithmetic as written in the file."""
        return self.result.quality.exact


class ModelCard(WireModel):
    """A whole run.

    Args:
        activation_samples: How many calibration samples were run to look at activations.
    """

    task: str
    candidates: tuple[CardCandidate, ...]
    failures: tuple[FailedCandidate, ...]
    histograms: tuple[HistogramPair, ...]
    activation_samples: int
    sensitivities: tuple[SensitivityTable, ...] = ()
    seed: int | None
    data_sha256: dict[str, str]
    tools: dict[str, str]
    is_complete: bool
