"""What `run` made, as a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab_compressor.compressed import COMPRESSOR, compressed_file_bytes
from trimtab_protocol.base import WireModel
from trimtab_protocol.manifest import ModelFormat, PassRecord, Quality

if TYPE_CHECKING:
    from trimtab_compressor.build import Built


class CandidateResult(WireModel):
    """One candidate.

    Args:
        compressed_bytes: Of the file after `compressor`, which pruned weights make smaller; devices
            are sent the file as it is.
    """

    recipe: str
    format: ModelFormat
    file: str
    size_bytes: int
    compressed_bytes: int
    compressor: str = COMPRESSOR
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
            compressed_bytes=compressed_file_bytes(built.path),
            quality=built.quality,
            passes=built.passes,
            seconds=built.seconds,
        )

    def notes(self) -> tuple[str, ...]:
        """What the passes want people to know of this candidate."""
        found = (row.findings.get("note") for row in self.passes)
        return tuple(str(note) for note in found if note is not None)


class RunReport(WireModel):
    """All candidates of one run."""

    task: str
    candidates: tuple[CandidateResult, ...]
