"""What `run` made, as a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab_protocol.base import WireModel
from trimtab_protocol.manifest import ModelFormat, PassRecord, Quality

if TYPE_CHECKING:
    from trimtab_compressor.build import Built


class CandidateResult(WireModel):
    """One candidate."""

    recipe: str
    format: ModelFormat
    file: str
    size_bytes: int
    quality: Quality
    passes: tuple[PassRecord, ...]
    seconds: float

    @classmethod
    def of(cls, built: Built, file: str) -> CandidateResult:
        """From what the builder gave."""
        return cls(
            recipe=built.choice.recipe,
            format=built.choice.format,
            file=file,
            size_bytes=built.size_bytes,
            quality=built.quality,
            passes=built.passes,
            seconds=built.seconds,
        )


class RunReport(WireModel):
    """All candidates of one run."""

    task: str
    candidates: tuple[CandidateResult, ...]
