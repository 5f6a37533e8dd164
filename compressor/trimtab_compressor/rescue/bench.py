"""Carry settings out as chains of file passes, each result cached by content."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab_compressor.arrays import digest_key
from trimtab_compressor.cache import Cache
from trimtab_compressor.evidence import Evidence
from trimtab_compressor.file_line import FileLine
from trimtab_compressor.judgement import FileJudgement
from trimtab_compressor.plan import Point, Step
from trimtab_compressor.recipe_book import BASE_PASSES
from trimtab_compressor.rescue.decide import Measured
from trimtab_compressor.rescue.rungs import Setting
from trimtab_compressor.results import path_of, read_note
from trimtab_compressor.runtimes.port import Kernels, fit_samples
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.sensitivity import measure_sensitivity
from trimtab_compressor.specs.base import FileSpec, NetworkSpec
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import ModelFormat

if TYPE_CHECKING:
    from trimtab_compressor.build import Builder


RANKING_SAMPLES = 512
"""Test samples that layers are ranked with, at most: every layer runs them once."""


class FileBench:
    """Quantizes one float file.

    Args:
        line: Plans the passes.
        evidence: The line's.
        first: The float file; it and what it is compared with are in the cache already.
        cache: Where results are.
        do: Makes a step's result, if it is not there.
        networks: What the file came from; all but the base is paid for by the first setting.
    """

    def __init__(
        self,
        line: FileLine,
        evidence: Evidence,
        first: Point,
        *,
        cache: Cache,
        do: Callable[[Step], None],
        networks: tuple[Point, ...] = (),
    ) -> None:
        self._line = line
        self._evidence = evidence
        self._first = first
        self._cache = cache
        self._do = do
        self._networks = networks[1:]  # the base is there whatever is done
        self._paid: set[str] = set()

    def measure_float(self) -> float:
        """Exact accuracy of the float file."""
        exact = self.float_judgement().quality.exact
        assert exact is not None
        return exact

    def float_judgement(self) -> FileJudgement:
        """How good the float file is."""
        self._do(self._first.judgement)
        return self.judgement(self._first)

    def measure(self, setting: Setting) -> Measured:
        """See climb.Bench."""
        if setting.is_trained:
            raise ConfigError("a file cannot be trained: give a task file, and the command rescue")
        return self.measure_chain(setting.file_passes())

    def measure_chain(self, specs: tuple[FileSpec, ...]) -> Measured:
        """Carry out passes on the float file.

        Raises:
            ModelError: A pass failed.
            ConfigError: A pass does not exist for this format.
        """
        points = self._line.points(self._first, specs)
        for point in points[1:]:
            self._do(point.result)
        self._do(points[-1].judgement)
        judgement = self.judgement(points[-1])
        assert judgement.quality.exact is not None
        return Measured(
            accuracy=judgement.quality.exact,
            on_host=judgement.quality.on_host,
            cosine=min((row.cosine for row in judgement.agreements), default=0.0),
            size_bytes=judgement.size_bytes,
            seconds=round(sum(self._pay(point) for point in (*self._networks, *points[1:])), 3),
        )

    def rank(self, setting: Setting) -> tuple[str, ...]:
        """See climb.Bench; by quantizing each layer alone, as `sensitivity` does."""
        source = self._line.points(self._first, setting.file_passes()[:-1])[-1].result

        def make(path: Path) -> None:
            path.write_text(json.dumps(self._measure_ranking(source, setting)))

        parts = {
            "ranking": source.key,
            "spec": setting.static.parameters(),
            "data": self._evidence.sha256.get("calibration"),
            "test": self._evidence.test_digests(),
        }
        step = Step("rank the layers by sensitivity", digest_key(parts), ".ranking.json", make)
        self._do(step)
        return tuple(json.loads(path_of(self._cache, step).read_text()))

    def result(self, setting: Setting) -> Step:
        """The file that a setting gave."""
        return self._line.points(self._first, setting.file_passes())[-1].result

    def judgement(self, point: Point) -> FileJudgement:
        """How good a file is, which has been judged."""
        text = path_of(self._cache, point.judgement).read_text()
        return FileJudgement.model_validate_json(text)

    def _measure_ranking(self, source: Step, setting: Setting) -> tuple[str, ...]:
        path, evidence = path_of(self._cache, source), self._evidence
        io = open_model(path, Kernels.EXACT).io
        assert evidence.calibration is not None
        test = fit_samples(io, evidence.inputs, what="test samples")
        return measure_sensitivity(
            path,
            setting.static,
            fit_samples(io, evidence.calibration, what="calibration samples"),
            {name: rows[:RANKING_SAMPLES] for name, rows in test.items()},
            labels=None if evidence.labels is None else evidence.labels[:RANKING_SAMPLES],
        ).names()

    def _pay(self, point: Point) -> float:
        """Seconds of a pass, the first time that its result is used."""
        if point.result.key in self._paid:
            return 0.0
        self._paid.add(point.result.key)
        return float(read_note(self._cache, point.result.key).get("seconds", 0.0))


class TaskBench:
    """As FileBench, and trains networks where a setting asks for it.

    Args:
        builder: Of the task.
        model_format: Of the files.
    """

    def __init__(self, builder: Builder, model_format: ModelFormat) -> None:
        self._builder = builder
        self._format = model_format
        self._benches: dict[tuple[NetworkSpec, ...], FileBench] = {}

    def measure_float(self) -> float:
        """Exact accuracy of the float file."""
        return self._bench(BASE_PASSES).measure_float()

    def float_judgement(self) -> FileJudgement:
        """How good the float file is."""
        return self._bench(BASE_PASSES).float_judgement()

    def measure(self, setting: Setting) -> Measured:
        """See climb.Bench."""
        bench = self._bench(setting.network_passes() or BASE_PASSES)
        return bench.measure_chain(setting.file_passes())

    def rank(self, setting: Setting) -> tuple[str, ...]:
        """See FileBench.rank."""
        return self._bench(setting.network_passes() or BASE_PASSES).rank(setting)

    def result(self, setting: Setting) -> Step:
        """The file that a setting gave."""
        return self._bench(setting.network_passes() or BASE_PASSES).result(setting)

    def _bench(self, specs: tuple[NetworkSpec, ...]) -> FileBench:
        if specs not in self._benches:
            self._benches[specs] = start_bench(self._builder, specs, self._format)
        return self._benches[specs]


def start_bench(
    builder: Builder, specs: tuple[NetworkSpec, ...], model_format: ModelFormat
) -> FileBench:
    """A bench over the float file after passes over a network.

    Raises:
        ModelError: A pass failed, or the network cannot be exported.
    """
    start = builder.start(specs, model_format)
    for point in (*start.networks, start.first):
        for step in point.steps():
            builder.do(step)
    return FileBench(
        start.line,
        builder.evidence,
        start.first,
        cache=builder.cache,
        do=builder.do,
        networks=start.networks,
    )
