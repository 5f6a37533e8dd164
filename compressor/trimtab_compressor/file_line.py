"""The steps that work on a file, whatever the file came from."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from trimtab_compressor.arrays import digest_key
from trimtab_compressor.cache import Cache
from trimtab_compressor.evaluate import judge_file, read_host_cpu
from trimtab_compressor.evidence import Evidence
from trimtab_compressor.learned_ranges import LearnedRange
from trimtab_compressor.passes.stage import FileStage, Validation
from trimtab_compressor.passes.table import FILE_PASSES
from trimtab_compressor.plan import Point, Step, title_of
from trimtab_compressor.results import load_outputs, path_of, run_pass, write_note
from trimtab_compressor.runtimes.port import Kernels, fit_samples
from trimtab_compressor.runtimes.table import open_model
from trimtab_compressor.specs.base import FileSpec, Need
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.manifest import ModelFormat

FILE_TOOLS: dict[ModelFormat, tuple[str, ...]] = {
    ModelFormat.ONNX: ("onnx", "onnxruntime"),
    ModelFormat.TFLITE: ("ai-edge-quantizer", "ai-edge-litert"),
}
"""Packages that change files and run them: another version of one may give another result."""


class FileLine:
    """Plans file steps; a step's `make` finds the results of those before it in the cache.

    Args:
        evidence: What to calibrate with and to judge on.
        reference: Step that gives the float model's outputs on the test samples.
        model_format: Of the files.
        cache: Where results are kept.
        ranges: Gives those that the network was trained with.
    """

    def __init__(
        self,
        evidence: Evidence,
        reference: Step,
        model_format: ModelFormat,
        cache: Cache,
        ranges: Callable[[], tuple[LearnedRange, ...]] = tuple,
    ) -> None:
        self._evidence = evidence
        self._reference = reference
        self._format = model_format
        self._cache = cache
        self._ranges = ranges

    def points(self, first: Point, specs: tuple[FileSpec, ...]) -> tuple[Point, ...]:
        """The float file, then one point after each pass."""
        found = [first]
        for spec in specs:
            result = self._result(found[-1].result, spec)
            judgement = self.judgement(result, f"{spec.pass_name} {self._format.value}")
            found.append(Point(spec.pass_name, spec, result, None, judgement))
        return tuple(found)

    def judgement(self, file: Step, name: str) -> Step:
        """How good a file is on its runtime."""

        def make(path: Path) -> None:
            judgement = judge_file(
                path_of(self._cache, file),
                self._evidence.inputs,
                self._evidence.labels,
                load_outputs(path_of(self._cache, self._reference)),
            )
            path.write_text(judgement.model_dump_json())

        key = digest_key(
            {
                "file": file.key,
                "reference": self._reference.key,
                "cpu": read_host_cpu(),
                "tools": self._tools(),
                "data": self._evidence.test_digests(),
            }
        )
        return Step(f"evaluate the file after {name}", key, ".file.json", make)

    def _result(self, source: Step, spec: FileSpec) -> Step:
        key = self._key(source, spec)

        def make(path: Path) -> None:
            stage = self._stage(spec, path_of(self._cache, source), path)
            function = FILE_PASSES.get((spec.pass_name, self._format))
            if function is None:
                raise ConfigError(f"{spec.pass_name} does not exist for {self._format.value}")
            started = time.monotonic()
            findings = run_pass(spec.pass_name, lambda: function(stage))
            write_note(self._cache, key, started, findings)

        title = title_of(spec, where=self._format.value)
        return Step(title, key, f".{self._format.value}", make)

    def _stage(self, spec: FileSpec, source: Path, target: Path) -> FileStage[FileSpec]:
        io, evidence = open_model(source, Kernels.EXACT).io, self._evidence
        validation = None
        if Need.VALIDATION in spec.all_needs():
            validation = Validation(
                inputs=fit_samples(io, evidence.inputs, what="test samples"),
                labels=evidence.labels,
                reference=load_outputs(path_of(self._cache, self._reference))[0],
            )
        calibration = {}
        if evidence.calibration is not None:
            calibration = fit_samples(io, evidence.calibration, what="calibration samples")
        return FileStage(spec, source, target, calibration, validation, self._ranges(), self._cache)

    def _key(self, source: Step, spec: FileSpec) -> str:
        parts: dict[str, object] = {
            "source": source.key,
            "pass": [spec.pass_name, spec.revision],
            "parameters": spec.parameters(),
            "tools": self._tools(),
            "calibration": self._evidence.sha256.get("calibration"),
        }
        if Need.VALIDATION in spec.all_needs():
            parts["validation"] = [self._reference.key, *self._evidence.test_digests()]
        return digest_key(parts)

    def _tools(self) -> dict[str, str]:
        return {name: version(name) for name in FILE_TOOLS[self._format]}
