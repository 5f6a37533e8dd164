"""What is done for one candidate, step by step, before any of it is done.

Rules:
    1. A step's key is a digest of everything that its result depends on, so steps of two candidates
       with the same key are the same step.
    2. Steps come in an order in which each finds what it depends on in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

from trimtab_compressor.specs.base import Spec


@dataclass(frozen=True)
class Step:
    """One result.

    Args:
        title: For people, such as "prune_channels ratio=0.5".
        key: Digest of all it depends on.
        suffix: Of the result's file name.
        make: Writes the result at the path that it is given.
    """

    title: str
    key: str
    suffix: str
    make: Callable[[Path], None] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Point:
    """One intermediate of a candidate: a network or a file.

    Args:
        name: Of the pass; "export", or "given" for a file that a person gave.
        spec: Of the pass; None for the other two.
        result: The network or the file.
        outputs: Its outputs on the test samples, where later points are compared with them.
        judgement: How good it is.
    """

    name: str
    spec: Spec | None
    result: Step
    outputs: Step | None
    judgement: Step

    def steps(self) -> tuple[Step, ...]:
        """In order."""
        return tuple(row for row in (self.result, self.outputs, self.judgement) if row is not None)


@dataclass(frozen=True)
class Plan:
    """One candidate.

    Args:
        networks: One per pass over the network; none for a model file.
        files: The float file, then one per pass over it.
    """

    networks: tuple[Point, ...]
    files: tuple[Point, ...]

    def points(self) -> tuple[Point, ...]:
        """All, in order."""
        return (*self.networks, *self.files)

    def steps(self) -> tuple[Step, ...]:
        """All, in order."""
        return tuple(step for point in self.points() for step in point.steps())


def title_of(spec: Spec, *, where: str = "") -> str:
    """A pass and what it was told beside its defaults, in one line."""
    told = [row.name for row in fields(spec) if getattr(spec, row.name) != row.default]
    parameters = [f"{name}={value}" for name, value in spec.parameters().items() if name in told]
    return " ".join(filter(None, (spec.pass_name, where, *parameters)))
