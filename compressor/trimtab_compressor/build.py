"""Build candidates: passes over the network, export, passes over the file, each of them evaluated.

Every step is cached by content: its key covers its spec, the key of the step before, the data, the
task's source, the training settings and the versions of the tools. So recipes that share a beginning
share its result, a second run computes nothing, and one that was interrupted goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from trimtab_compressor.agreement import check_agreement
from trimtab_compressor.arrays import digest_file
from trimtab_compressor.cache import Cache
from trimtab_compressor.evidence import Evidence
from trimtab_compressor.file_line import FILE_TOOLS, FileLine
from trimtab_compressor.given_file import GivenFile
from trimtab_compressor.judgement import FileJudgement, NetworkJudgement
from trimtab_compressor.model_file import ModelFile, ModelFiles
from trimtab_compressor.needs import check_needs, network_passes_of
from trimtab_compressor.network_line import NETWORK_TOOLS, NetworkLine
from trimtab_compressor.plan import Plan, Point, Step
from trimtab_compressor.recipe import Choice
from trimtab_compressor.recipe_book import BASE_RECIPE, RecipeBook
from trimtab_compressor.recipes import SHIPPED
from trimtab_compressor.results import path_of, read_note
from trimtab_compressor.run_report import StepResult
from trimtab_compressor.specs.base import FileSpec, NetworkSpec
from trimtab_compressor.task import Task
from trimtab_compressor.threads import thread_count
from trimtab_protocol.manifest import ModelFormat, PassRecord, Quality, Scalar

TOOLS: dict[ModelFormat, tuple[str, ...]] = {
    ModelFormat.ONNX: (*NETWORK_TOOLS, *FILE_TOOLS[ModelFormat.ONNX]),
    ModelFormat.TFLITE: (*NETWORK_TOOLS, "litert-torch", *FILE_TOOLS[ModelFormat.TFLITE]),
}


@dataclass(frozen=True)
class Built:
    """A finished candidate.

    Args:
        choice: Recipe and format.
        path: The model file, in the cache.
        size_bytes: Of the file.
        quality: With the base's accuracy in the same format.
        passes: What made it, with the seconds of each when it was first computed.
        base_sha256: Of the base in the same format; None for the base itself.
        seconds: Wall time of this call; near 0 if everything came from the cache.
        steps: Every intermediate, as it was evaluated.
    """

    choice: Choice
    path: Path
    size_bytes: int
    quality: Quality
    passes: tuple[PassRecord, ...]
    base_sha256: str | None
    seconds: float
    steps: tuple[StepResult, ...] = ()


@dataclass(frozen=True)
class Start:
    """What passes over a file start from.

    Args:
        networks: One point per pass over the network; none for a model file.
        line: Plans the passes over the file.
        first: The float file.
    """

    networks: tuple[Point, ...]
    line: FileLine
    first: Point


class Builder:
    """Makes the candidates of one task or model file.

    Args:
        subject: What to compress.
        cache: Where results are kept.
        report: Told in one line what is about to be computed.
        book: The recipes.
        on_step: Told each step that is there, computed or found.
    """

    def __init__(
        self,
        subject: Task | ModelFile | ModelFiles,
        cache: Cache,
        report: Callable[[str], None],
        book: RecipeBook = SHIPPED,
        on_step: Callable[[Step], None] = lambda _: None,
    ) -> None:
        self._subject = subject
        self.cache = cache
        self._report = report
        self._book = book
        self._on_step = on_step
        self._networks = NetworkLine(subject, cache) if isinstance(subject, Task) else None
        torch.set_num_threads(thread_count())

    def build(self, choice: Choice) -> Built:
        """Give one candidate, from the cache as far as possible.

        Raises:
            ModelError: A pass failed, or the file does not compute its network.
            ConfigError: The recipe does not exist or does not fit the subject.
        """
        started = time.monotonic()
        check_needs(self._book.find(choice.recipe), choice.format, self._subject.has)
        base = self.plan(Choice(BASE_RECIPE, choice.format))
        plan = self.plan(choice)
        self._carry_out(base)
        self._carry_out(plan)
        own, base_file = plan.files[-1], base.files[-1]
        path = path_of(self.cache, own.result)
        base_quality = self._file_judgement(base_file).quality
        return Built(
            choice=choice,
            path=path,
            size_bytes=path.stat().st_size,
            quality=self._file_judgement(own).quality.model_copy(
                update={"base": base_quality.exact}
            ),
            passes=tuple(self._record(row) for row in plan.points() if row.spec is not None),
            base_sha256=None
            if plan == base
            else digest_file(path_of(self.cache, base_file.result)),
            seconds=time.monotonic() - started,
            steps=tuple(self._step_result(row) for row in plan.points()),
        )

    def plan(self, choice: Choice) -> Plan:
        """What building a choice takes, in order; computes nothing.

        Raises:
            ConfigError: The recipe does not exist.
        """
        recipe = self._book.find(choice.recipe)
        start = self.start(network_passes_of(recipe, self._subject.has), choice.format)
        return Plan(
            start.networks, start.line.points(start.first, recipe.file_passes[choice.format])
        )

    def start(self, network_passes: tuple[NetworkSpec, ...], model_format: ModelFormat) -> Start:
        """What the passes over a file start from; computes nothing.

        Args:
            network_passes: Of a task; a model file has none.
            model_format: Of the files.
        """
        if not isinstance(self._subject, Task):
            return self._start_file(self._subject.file(model_format), model_format)
        networks = self._networks
        assert networks is not None
        points = networks.points(network_passes)
        last = points[-1]
        assert last.outputs is not None
        exported = networks.export(last, model_format, self.tools(model_format))
        line = FileLine(
            self._subject.evidence,
            last.outputs,
            model_format,
            self.cache,
            lambda: networks.ranges(last),
        )
        judgement = line.judgement(exported, f"export {model_format.value}")
        return Start(points, line, Point("export", None, exported, None, judgement))

    def count_steps(self, choices: Iterable[Choice]) -> int:
        """How many different steps these choices take, with those that are in the cache."""
        plans = [self.plan(choice) for choice in choices]
        plans += [self.plan(Choice(BASE_RECIPE, row.format)) for row in choices]
        return len({(step.key, step.suffix) for plan in plans for step in plan.steps()})

    def tools(self, model_format: ModelFormat) -> dict[str, str]:
        """Versions of what made the candidates of a format."""
        return {name: version(name) for name in TOOLS[model_format]}

    @property
    def evidence(self) -> Evidence:
        """Of the subject."""
        return self._subject.evidence

    def do(self, step: Step) -> None:
        """Make a step's result, if it is not in the cache."""

        def make(path: Path) -> None:
            self._report(step.title)
            step.make(path)

        self.cache.get_or_make(step.key, step.suffix, make)
        self._on_step(step)

    def _start_file(self, subject: ModelFile, model_format: ModelFormat) -> Start:
        given = GivenFile(subject, self.cache)
        result, outputs = given.result(), given.outputs()
        line = FileLine(subject.evidence, outputs, model_format, self.cache)
        judgement = line.judgement(result, "reading it")
        return Start((), line, Point("given", None, result, outputs, judgement))

    def _carry_out(self, plan: Plan) -> None:
        """Do what is not in the cache; stop at the first file that does not compute its network.

        Files in the middle of a chain may be off: a later pass may be there to mend them.
        """
        for point in plan.points():
            for step in point.steps():
                self.do(step)
            if point in (plan.files[0], plan.files[-1]):
                self._check(plan, point)

    def _check(self, plan: Plan, point: Point) -> None:
        specs = [row.spec for row in plan.files[: plan.files.index(point) + 1]]
        is_quantized = any(isinstance(spec, FileSpec) and not spec.is_exact for spec in specs)
        for agreement in self._file_judgement(point).agreements:
            check_agreement(agreement, is_quantized=is_quantized)

    def _file_judgement(self, point: Point) -> FileJudgement:
        text = path_of(self.cache, point.judgement).read_text()
        return FileJudgement.model_validate_json(text)

    def _record(self, point: Point) -> PassRecord:
        spec = point.spec
        assert spec is not None
        parameters: dict[str, Scalar] = dict(spec.parameters())
        if isinstance(spec, NetworkSpec) and isinstance(self._subject, Task):
            parameters |= asdict(self._subject.training)
        note = read_note(self.cache, point.result.key)
        return PassRecord(name=spec.pass_name, parameters=parameters, **note)

    def _step_result(self, point: Point) -> StepResult:
        note = read_note(self.cache, point.result.key)
        parameters = point.spec.parameters() if point.spec is not None else {}
        if point.judgement.suffix == ".network.json":
            text = path_of(self.cache, point.judgement).read_text()
            network = NetworkJudgement.model_validate_json(text)
            return StepResult.of_network(point.name, parameters, note, network)
        return StepResult.of_file(point.name, parameters, note, self._file_judgement(point))
