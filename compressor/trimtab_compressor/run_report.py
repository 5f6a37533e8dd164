"""What `run` made, as a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from trimtab_compressor.arrays import digest_file
from trimtab_compressor.compressed import COMPRESSOR, compressed_file_bytes
from trimtab_compressor.judgement import FileJudgement, NetworkJudgement
from trimtab_protocol.base import Sha256, WireModel
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.manifest import ModelFormat, PassRecord, Quality, Scalar

if TYPE_CHECKING:
    from trimtab_compressor.build import Built
    from trimtab_compressor.recipe import Choice


class StepResult(WireModel):
    """One intermediate of a candidate, as it was evaluated on the whole test set."""

    name: str = Field(description="of the pass; 'export', or 'given' for a file that was given")
    kind: Literal["network", "file"]
    parameters: dict[str, Scalar] = Field(default_factory=dict)
    findings: dict[str, Scalar] = Field(default_factory=dict)
    seconds: float | None = Field(default=None, description="when it was first computed")
    metric: str
    samples: int
    accuracy: float | None = Field(
        description="network: run by PyTorch; file: by its runtime, arithmetic as written"
    )
    on_host: float | None = Field(
        default=None, description="file: by the default kernels of this CPU"
    )
    parameter_count: int | None = Field(default=None, description="network")
    macs: int | None = Field(
        default=None,
        description="network: multiply-accumulates of one sample in convolutions, dense layers, "
        "matrix products and recurrent layers",
    )
    size_bytes: int | None = Field(default=None, description="file")

    @classmethod
    def of_network(
        cls,
        name: str,
        parameters: Mapping[str, Scalar],
        note: Mapping[str, Any],
        judgement: NetworkJudgement,
    ) -> StepResult:
        """After a pass over the network."""
        figures = judgement.model_dump()
        return cls(name=name, kind="network", parameters=dict(parameters), **note, **figures)

    @classmethod
    def of_file(
        cls,
        name: str,
        parameters: Mapping[str, Scalar],
        note: Mapping[str, Any],
        judgement: FileJudgement,
    ) -> StepResult:
        """After the export, or a pass over the file."""
        quality = judgement.quality
        return cls(
            name=name,
            kind="file",
            parameters=dict(parameters),
            **note,
            metric=quality.metric,
            samples=quality.samples,
            accuracy=quality.exact,
            on_host=quality.on_host,
            size_bytes=judgement.size_bytes,
        )


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
    steps: tuple[StepResult, ...] = ()
    sha256: Sha256 | None = Field(default=None, description="of the file")
    base_sha256: Sha256 | None = Field(
        default=None, description="of the base in the same format; absent for the base itself"
    )

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
            steps=built.steps,
            sha256=digest_file(built.path),
            base_sha256=built.base_sha256,
        )

    def notes(self) -> tuple[str, ...]:
        """What the passes want people to know of this candidate."""
        found = (row.findings.get("note") for row in self.passes)
        return tuple(str(note) for note in found if note is not None)


class FailedCandidate(WireModel):
    """One that could not be made."""

    recipe: str
    format: ModelFormat
    code: ErrorCode
    reason: str

    @classmethod
    def of(cls, choice: Choice, code: ErrorCode, reason: str) -> FailedCandidate:
        """From the error that ended it."""
        return cls(recipe=choice.recipe, format=choice.format, code=code, reason=reason)


class RunReport(WireModel):
    """All candidates of one run."""

    task: str = Field(description="name of the task, or of the model file")
    candidates: tuple[CandidateResult, ...]
    failures: tuple[FailedCandidate, ...] = ()
    seed: int | None = Field(default=None, description="of training")
    data_sha256: dict[str, Sha256] = Field(default_factory=dict, description="by role")
    tools: dict[str, str] = Field(default_factory=dict, description="library versions")
    is_complete: bool = Field(default=True, description="false: interrupted; run it again to go on")
