"""How good an intermediate is, as it is kept in the cache."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trimtab_compressor.agreement import Agreement
from trimtab_protocol.base import WireModel
from trimtab_protocol.manifest import Quality

Ratio = Annotated[float, Field(ge=0, le=1)]


class NetworkJudgement(WireModel):
    """A network on the test samples, run by PyTorch."""

    metric: str
    samples: Annotated[int, Field(ge=1)]
    accuracy: Ratio
    parameter_count: int
    macs: int = Field(description="of one sample; see trimtab_compressor.macs for what is counted")


class FileJudgement(WireModel):
    """A file on the test samples, run by its runtime; `quality.base` is left open."""

    quality: Quality
    agreements: tuple[Agreement, ...] = Field(description="with the float model, by output")
    size_bytes: int
