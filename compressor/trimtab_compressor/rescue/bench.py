"""Carry settings out as chains of file passes, each result cached by content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from trimtab_compressor.cache import Cache
from trimtab_compressor.file_line import FileLine
from trimtab_compressor.judgement import FileJudgement
from trimtab_compressor.plan import Point, Step
from trimtab_compressor.recipe_book import BASE_PASSES
from trimtab_compressor.rescue.decide import Measured
from trimtab_compressor.rescue.rungs import Setting
from trimtab_compressor.results import path_of, read_note
from trimtab_compressor.specs.base import FileSpec, NetworkSpec
from trimtab_protocol.errors import ConfigError, ModelError
from trimtab_protocol.manifest import ModelFormat

if TYPE_CHECKING:
    from trimtab_compressor.build import Builder


class FileBench:
    """Quantizes one float file.

    Args:
        line: Plans the passes.
        first: The float file; it and what it is compared with are in the cache already.
        cache: Where results are.
        do: Makes a step's result, if it is not there.
        networks: What the file came from; all but the base is paid for by the first setting.
    """

    def __init__(
        self,
        line: FileLine,
        first: Point,
        cache: Cache,
        do: Callable[[Step], None],
        networks: tuple[Point, ...] = (),
    ) -> None:
        self._line = line
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
        """By leaving each layer in float alone: how near that brings the outputs to the float model's.

        Accuracy moves by whole samples and would leave most layers equal, so the cosine decides.
        """
        from trimtab_compressor.layers.table import open_layers  # noqa: PLC0415 - heavy

        names = [row.name for row in open_layers(path_of(self._cache, self._first.result)).layers]
        if len(names) < 2:
            raise ModelError(f"the model has {len(names)} layers with weights, none to choose from")
        gains = {name: self._gain(setting, name) for name in names}
        return tuple(sorted(names, key=lambda name: -gains[name]))

    def result(self, setting: Setting) -> Step:
        """The file that a setting gave."""
        return self._line.points(self._first, setting.file_passes())[-1].result

    def judgement(self, point: Point) -> FileJudgement:
        """How good a file is, which has been judged."""
        text = path_of(self._cache, point.judgement).read_text()
        return FileJudgement.model_validate_json(text)

    def _gain(self, setting: Setting, name: str) -> float:
        try:
            alone = replace(setting, static=replace(setting.static, excluded=(name,)))
            return self.measure(alone).cosine
        except ModelError:  # such as a model of which this is the only layer that can be quantized
            return -1.0

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
    return FileBench(start.line, start.first, builder.cache, builder.do, start.networks)
